"""A member whose disk lost entries that it may have acknowledged (Alagappan et al., "Protocol-aware
recovery for consensus-based storage", 2018).

It knows its term and its vote, which have a second copy, and lacks any number of entries. Until
its log is whole again it neither votes nor campaigns: a majority that chooses a leader must have
somebody who holds each committed entry, and that might have been this one alone. It follows and
acknowledges as ever: that is true, and needs nothing of what was lost.

Whole is a log that agrees, on disk, with that of a leader up to the leader's last entry as of a
time after this process began. For whatever was acknowledged to that leader in its term is no
longer than its log; and what was committed in an earlier term with an acknowledgement of ours it
has, for nobody was elected by a vote of ours since we lost it. Its commit index would not do: it
may count an acknowledgement that we gave and lost for an entry that it commits later. Nor would
what another leader told: the log of the next one may be shorter.

The leader may believe that we have more than we do, and takes no refusal of what it believes. To be
asked tells it that it must look anew.
"""

from __future__ import annotations

from p2psched.core.raft.progress import Regain
from p2psched.core.raft.state import LEADER, RaftState
from p2psched.model.ids import PeerId
from p2psched.model.raft import ReadAsk, ReadReply

# --- the one who lost -----------------------------------------------------------------------------


def on_agreed(s: RaftState, leader: PeerId, match: int, *, is_heartbeat: bool) -> None:
    """Our log agrees with the leader's up to `match`, though not all of it may be on disk."""
    regain = _of_term(s)
    if regain is None:
        return
    regain.agreed = max(regain.agreed, match)
    if regain.target is None and is_heartbeat:
        _ask(s, leader, regain)
    end_if_whole(s)


def on_refused(s: RaftState, leader: PeerId) -> None:
    """It takes us for longer than we are."""
    regain = _of_term(s)
    if regain is not None:
        _ask(s, leader, regain)


def _ask(s: RaftState, leader: PeerId, regain: Regain) -> None:
    s.send(leader, ReadAsk(s.term, regain.nonce, lost=True))


def on_told(s: RaftState, sender: PeerId, reply: ReadReply) -> None:
    regain = _of_term(s)
    if regain is None or reply.read != regain.nonce or reply.index < 0:
        return
    if reply.term == s.term and s.leader == sender:
        regain.target = max(regain.target or 0, reply.index)
        end_if_whole(s)


def _of_term(s: RaftState) -> Regain | None:
    """What another leader told counts no more."""
    regain = s.regain
    if regain is not None and regain.term != s.term:
        regain.term, regain.target, regain.agreed = s.term, None, 0
    return regain


def end_if_whole(s: RaftState) -> None:
    """From then on for good, whatever the next leader has: the disk is told, and then we vote."""
    regain = _of_term(s)
    if regain is None or regain.target is None or regain.ends:
        return
    if min(regain.agreed, s.log.stable) >= regain.target:
        regain.ends = True
        s.end_regain()


# --- its leader -----------------------------------------------------------------------------------


def on_ask(s: RaftState, sender: PeerId, ask: ReadAsk) -> None:
    progress = s.progress.get(sender)
    if s.role is not LEADER or progress is None or ask.term != s.term:
        return
    if progress.match or not progress.probing:
        progress.match = 0
        progress.probe(s.log.last_index + 1)
    s.send(sender, ReadReply(s.term, ask.read, s.log.last_index, lost=True))

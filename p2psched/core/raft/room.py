"""Full disks: who leads then, and whom the leader knows to be full (ADR 0022).

A peer with little room follows and votes as ever, for without it there may be no majority. It
doesn't lead while another voter can, and its own campaign comes after those of the others. One
whose writes wait for space answers heartbeats, and is held dead by the ledger all the same: it
learns of no grant.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.raft import transfer
from p2psched.core.raft.state import LEADER, RaftState
from p2psched.model.ids import PeerId
from p2psched.model.raft import AppendReply, Room

_NONE: Final = Room.NONE  # looking it up in its class takes six times as long (Python 3.11)


def on_reply(s: RaftState, sender: PeerId, reply: AppendReply) -> None:
    """What a follower says of its disk."""
    progress = s.progress.get(sender)
    if s.role is not LEADER or progress is None or reply.term != s.term:
        return
    if progress.room != reply.room:
        progress.room = Room(reply.room) if 0 <= reply.room <= _NONE else _NONE
    if progress.room is not _NONE:
        progress.able_ms = s.now_ms


def on_tick(s: RaftState) -> None:
    """A leader with little room hands over once another voter is fit to lead. If nobody can take
    over at once, or nobody has within an election timeout, it stands down (`transfer.on_tick`)."""
    if s.role is not LEADER or s.room is Room.ENOUGH or s.transfer is not None:
        return
    if _is_other_fit(s) and not transfer.begin_for_room(s):
        s.become_follower(None)


def _is_other_fit(s: RaftState) -> bool:
    """Said lately that it has room, and has all that is committed."""
    heard_since = s.now_ms - s.timing.election_ms_max
    return any(
        s.membership.is_voter(peer)
        and p.room is Room.ENOUGH
        and p.contact_ms >= heard_since
        and p.match >= s.commit
        for peer, p in s.progress.items()
    )


def full_members(s: RaftState) -> frozenset[PeerId]:
    """On the leader: whose disks have little room or none, as far as they said so."""
    if s.role is not LEADER:
        return frozenset()
    full = {peer for peer, p in s.progress.items() if p.room in (Room.LOW, Room.NONE)}
    return frozenset(full | {s.me} if s.room is not Room.ENOUGH else full)

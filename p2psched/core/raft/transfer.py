"""A leader hands over (section 3.10): to a voter that has all of its log, which then campaigns at
once, and whose voters don't wait for the silence of the old leader.

Nothing is appended meanwhile, or it would never be caught up; an election timeout at most, then
the leader leads on, or stands down if its disk is full. It is asked to before it stops, and does so
by itself when its disk is much slower than another's, or has little room (`room`). Safe whatever is
lost or late: a transfer is an election like any other.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.raft.election import campaign
from p2psched.core.raft.progress import Progress, Transfer
from p2psched.core.raft.sparing import may_wait
from p2psched.core.raft.state import LEADER, RaftState, Role
from p2psched.model.ids import PeerId
from p2psched.model.raft import Room, TimeoutNow

SLOW_SYNC_MS: Final = 250  # a leader whose syncs take so long looks for another
QUICKER: Final = 2  # whose syncs take at most this part of it
RETRY_MS: Final = 3_000  # between two tries to get rid of the lead

# --- leader ---------------------------------------------------------------------------------------


def on_hand_over(s: RaftState, avoid: frozenset[PeerId]) -> None:
    """Begin, if somebody is there to take over, and none of those to avoid."""
    fit = {peer: p for peer, p in _fit(s).items() if peer not in avoid}
    if fit:
        _begin(s, fit)


def on_tick(s: RaftState) -> None:
    """Give up what lasts too long; hand over by ourselves if our disk is the slow one."""
    if s.role is not LEADER:
        return
    if s.transfer is not None:
        if s.now_ms >= s.transfer.due_ms:
            must_end, s.transfer = s.transfer.for_room and s.room is not Room.ENOUGH, None
            if must_end:
                s.become_follower(None)
    elif s.commit >= s.leading_from and s.now_ms >= s.transfer_again_ms:
        own_ms = s.sync_ms
        if own_ms >= SLOW_SYNC_MS:
            s.transfer_again_ms = s.now_ms + RETRY_MS
            quick = {peer: p for peer, p in _fit(s).items() if p.sync_ms * QUICKER <= own_ms}
            if quick:
                _begin(s, quick)


def is_stopping(s: RaftState) -> bool:
    """True if this leader appends nothing more: another is about to lead."""
    return s.transfer is not None or bool(s.care.departing and not s.membership.is_voter(s.me))


def depart(s: RaftState) -> None:
    """We are no voter any more, and that is committed: one who has all of our log takes over."""
    s.transfer = None
    whole = {peer: p for peer, p in _fit(s).items() if p.match == s.log.last_index}
    if whole:
        quickest = min(whole, key=lambda peer: (whole[peer].sync_ms, peer))
        s.send(quickest, TimeoutNow(s.term))
    s.become_follower(None)


def _fit(s: RaftState) -> dict[PeerId, Progress]:
    """Voters that answer, and whose log can be made whole by appends."""
    if s.role is not LEADER or s.transfer is not None:
        return {}
    heard_since = s.now_ms - s.timing.election_ms_min
    return {
        peer: p
        for peer, p in s.progress.items()
        if s.membership.is_voter(peer)
        and not p.probing
        and p.room in (None, Room.ENOUGH)
        and p.contact_ms >= heard_since
        and (p.match >= s.commit or may_wait(s, p))
    }


def begin_for_room(s: RaftState) -> bool:
    """To somebody who said that its disk has room. False if nobody could take over at once."""
    fit = {peer: p for peer, p in _fit(s).items() if p.room is Room.ENOUGH}
    if fit:
        _begin(s, fit, for_room=True)
    return bool(fit)


def _begin(s: RaftState, fit: dict[PeerId, Progress], *, for_room: bool = False) -> None:
    to = min(fit, key=lambda peer: (fit[peer].sync_ms // 10, -fit[peer].match, peer))
    s.transfer = Transfer(to, s.now_ms + s.timing.election_ms_min, for_room)
    on_progress(s, to)


def on_progress(s: RaftState, peer: PeerId) -> None:
    """Tell the next leader once it has all; after each of its answers, for that may be lost."""
    told = s.transfer is not None and s.transfer.to == peer
    if told and s.progress[peer].match == s.log.last_index:
        s.send(peer, TimeoutNow(s.term))


# --- follower -------------------------------------------------------------------------------------


def on_timeout_now(s: RaftState, sender: PeerId, message: TimeoutNow) -> None:
    follows = s.role is Role.FOLLOWER and s.leader == sender and s.term == message.term
    if follows and s.membership.is_voter(s.me) and s.may_vote:
        campaign(s, transfer=True)

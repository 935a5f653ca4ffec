"""Whom a leader lets wait: those whom an entry, or its commit, does not concern.

Waking a peer costs more than all that it does with a small entry, so of a commit they hear
`NEWS_MS` later. While many callers fill the entries, only those whom an entry concerns and as many
voters as make a majority with us get it at once, and the others `SPARE_MS` later, several at a
time. If a commit takes much longer than the ones before, what is not committed goes to everybody.

Nothing here matters for safety: what is committed is on the disks of a majority, as ever.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.raft.progress import Progress
from p2psched.core.raft.state import Concerned, RaftState
from p2psched.core.raft.timing import NEVER_MS
from p2psched.model.ids import PeerId

NEWS_MS: Final = 5
SPARE_MS: Final = 20
HEDGE_MS_MIN: Final = 3  # a commit may take so long, ...
HEDGE_TIMES: Final = 2  # ... or so many times what commits usually take
CHANGE_TIMES: Final = 2
CHANGE_MS: Final = 5
COMMIT_WEIGHT: Final = 0.1  # of the newest in the moving average
NOBODY: Final[frozenset[PeerId]] = frozenset()


def spared(s: RaftState) -> frozenset[PeerId]:
    """Who need not have now what they lack, if it is young."""
    sparing, pending = s.sparing, s.sparing.pending
    if not sparing.many or (pending and sparing.hedged >= pending[0][0]):
        return NOBODY
    if not pending:
        return frozenset(s.progress)
    prompt: set[PeerId] = set()
    for _, concerned, many, _ in pending:
        if concerned is None or not many:
            return NOBODY
        prompt |= concerned
    needed = len(s.membership.voters) // 2
    able = sorted(
        (voter.peer not in prompt, _cost_ms(s, progress, voter.peer), voter.peer)
        for voter in s.membership.voters
        if (progress := s.progress.get(voter.peer)) is not None and not progress.probing
    )
    if len(able) < needed:
        return NOBODY
    sparing.chosen = [peer for _, _, peer in able[:needed]]
    prompt.update(sparing.chosen)
    return frozenset(peer for peer in s.progress if peer not in prompt)


def _cost_ms(s: RaftState, progress: Progress, peer: PeerId) -> float:
    """What its word takes. Who was chosen before stays it unless another is much quicker: whoever
    has been spared for a while has to be woken, and to catch up."""
    age_ms = progress.age_ms(s.now_ms)
    return age_ms / CHANGE_TIMES - CHANGE_MS if peer in s.sparing.chosen else age_ms


def may_wait(s: RaftState, progress: Progress) -> bool:
    """True if all that it lacks is young."""
    due_ms = s.sparing.due_ms
    return due_ms is not None and s.now_ms < due_ms and progress.next >= s.sparing.first


def wait(s: RaftState, first: int) -> None:
    """Somebody waits for what begins there."""
    if s.sparing.due_ms is None:
        after_ms = SPARE_MS if s.sparing.many else NEWS_MS
        s.sparing.due_ms, s.sparing.first = s.now_ms + after_ms, first


def note_appended(s: RaftState, index: int, concerned: Concerned, *, many: bool) -> None:
    """An entry of ours is about to be sent."""
    s.sparing.pending.append((index, concerned, many, s.now_ms))
    s.sparing.many = many
    if concerned is not None and many:
        wait(s, index)


def take_committed(s: RaftState) -> Concerned:
    """Whom the entries concern that were committed just now."""
    sparing, peers, everybody = s.sparing, set[PeerId](), False
    while sparing.pending and sparing.pending[0][0] <= s.commit:
        _, concerned, _, since_ms = sparing.pending.popleft()
        everybody |= concerned is None
        peers.update(concerned or ())
        sparing.commit_ms += COMMIT_WEIGHT * (s.now_ms - since_ms - sparing.commit_ms)
    return None if everybody else frozenset(peers)


def takes_due(s: RaftState) -> bool:
    """True if those who wait get now what they lack."""
    sparing = s.sparing
    is_late = s.now_ms >= _hedge_due_ms(s)
    if is_late:
        sparing.hedged = s.log.last_index
    is_due = sparing.due_ms is not None and s.now_ms >= sparing.due_ms
    if is_late or is_due:
        sparing.due_ms = None
    return is_late or is_due


def due_ms(s: RaftState) -> int:
    """When to look."""
    sparing = s.sparing
    spare_ms = -NEVER_MS if sparing.due_ms is None else sparing.due_ms
    return min(spare_ms, _hedge_due_ms(s)) if sparing.many else spare_ms


def _hedge_due_ms(s: RaftState) -> int:
    sparing = s.sparing
    if not sparing.many or not sparing.pending or sparing.hedged >= sparing.pending[0][0]:
        return -NEVER_MS
    usual_ms = int(HEDGE_TIMES * sparing.commit_ms) + 1
    return sparing.pending[0][3] + min(max(HEDGE_MS_MIN, usual_ms), SPARE_MS)

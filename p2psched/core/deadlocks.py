"""Finds out whether a claim that has just begun to wait can ever get its turn.

An owner with a claim that waits does nothing else until it has its turn; everybody else is expected
to let go of what they hold some day. A claim that gets no turn even then is one of a circle, which
only it can have closed: the last one that joins is told, and does not wait. So what is kept has
no circles, and only a claim whose owner has others that somebody waits for can make one.

No false ones: an owner that has several claims waiting goes on with the first that is granted, and
one that does not name itself always goes on. Counted locks fit in: of their holders all have to be
stuck.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from p2psched.core.lock_table import Claim, Lock, Locks
from p2psched.model.lock_actions import ClaimId, OwnerId

# Claims. What takes more is not looked for, and the circle, if it is one, lasts until somebody
# gives up or a lease ends.
LOOKED_AT_MAX: Final = 1_024
TOLD_MAX: Final = 8  # links of a circle

Circle = list[tuple[Claim, Claim]]  # who waits, and for whom; which waits in the next one


def circle_through(s: Locks, start: Claim) -> Circle:
    """Empty if there is none, or if it is too large to look for. `start` waits already."""
    if not start.owner or not any(_is_awaited(s, claim) for claim in s.by_owner[start.owner]):
        return []
    locks = _around(s, start)
    if locks is None:
        return []
    stuck = _Outlook(s, locks).stuck
    if start.owner not in stuck:
        return []
    return _shortest(s, start, stuck)


def told(circle: Circle) -> str:
    """For the caller, who is the first in it and would wait."""
    links = [
        f"{waiter.label or 'somebody'} waits for {waiter.name}, which "
        f"{other.label or 'somebody'} {'has' if other.token else 'waits for, too, and before it'}"
        for waiter, other in circle[:TOLD_MAX]
    ]
    if len(circle) > TOLD_MAX:
        links.append(f"and {len(circle) - TOLD_MAX} more")
    return (
        f"a deadlock: {'; '.join(links)}. Let go of what you hold and begin again; all who take "
        "several locks should take them in the same order"
    )


def _around(s: Locks, start: Claim) -> dict[str, Lock] | None:
    """The locks that decide about `start`; None if they have too many claims."""
    found = {start.name: s.lock_of(start)}
    left = [start.name]
    looked_at = 0
    while left:
        lock = found[left.pop()]
        looked_at += len(lock.holders) + len(lock.waiters)
        if looked_at > LOOKED_AT_MAX:
            return None
        for claim in _claims_of(s, lock):
            for other in _waiting(s, claim.owner):
                if other.name not in found:
                    found[other.name] = s.lock_of(other)
                    left.append(other.name)
    return found


def _is_awaited(s: Locks, claim: ClaimId) -> bool:
    waiters = s.lock_of(s.claims[claim]).waiters
    return bool(waiters) and next(reversed(waiters)) != claim


def _claims_of(s: Locks, lock: Lock) -> Iterator[Claim]:
    for held in lock.holders:
        yield s.claims[held]
    for waits in lock.waiters:
        yield s.claims[waits]


def _waiting(s: Locks, owner: OwnerId) -> list[Claim]:
    mine = (s.claims[claim] for claim in s.by_owner.get(owner, ()))
    return [claim for claim in mine if not claim.token]


class _Outlook:
    """Who goes on, if all who can let go of all they hold."""

    def __init__(self, s: Locks, locks: dict[str, Lock]) -> None:
        self._s = s
        self.stuck: dict[OwnerId, None] = {}  # not known to go on, yet
        self._going: deque[OwnerId] = deque()
        self._free: dict[str, int] = {}
        self._left: dict[str, deque[Claim]] = {}
        for name, lock in locks.items():
            self._free[name] = lock.units_free
            self._left[name] = deque(s.claims[claim] for claim in lock.waiters)
            for claim in _claims_of(s, lock):
                self._note(claim)
        for name in locks:
            self._take_turns(name)
        while self._going:
            self._go_on(self._going.popleft())

    def _note(self, claim: Claim) -> None:
        if not claim.owner:
            self._free[claim.name] += claim.units if claim.token else 0
        elif claim.owner not in self.stuck:
            self.stuck[claim.owner] = None
            if not _waiting(self._s, claim.owner):
                self._going.append(claim.owner)

    def _take_turns(self, name: str) -> None:
        waiters = self._left[name]
        while waiters and waiters[0].units <= self._free[name]:
            self._going.append(waiters.popleft().owner)  # which lets go of this one, too

    def _go_on(self, owner: OwnerId) -> None:
        if owner not in self.stuck:
            return
        del self.stuck[owner]
        for claim in (self._s.claims[claim] for claim in self._s.by_owner[owner]):
            if claim.token and claim.name in self._free:
                self._free[claim.name] += claim.units
                self._take_turns(claim.name)


def _shortest(s: Locks, start: Claim, stuck: dict[OwnerId, None]) -> Circle:
    """From `start` over those that are in its way, back to its owner."""
    came_from: dict[OwnerId, tuple[Claim, Claim]] = {}
    left = deque([start.owner])
    steps = 0
    while left and steps <= LOOKED_AT_MAX:
        for waiter in _waiting(s, left.popleft()):
            for other in _in_its_way(s, waiter):
                steps += 1
                if other.owner in stuck and other.owner not in came_from:
                    came_from[other.owner] = (waiter, other)
                    left.append(other.owner)
                if other.owner == start.owner:
                    return _path(start, came_from)
    return [(start, start)]  # it is one; how it goes would take too long to tell


def _in_its_way(s: Locks, waiter: Claim) -> Iterator[Claim]:
    for other in _claims_of(s, s.lock_of(waiter)):
        if other.id == waiter.id:
            return
        if not (waiter.shared and other.shared):
            yield other


def _path(start: Claim, came_from: dict[OwnerId, tuple[Claim, Claim]]) -> Circle:
    links: Circle = []
    owner = start.owner
    seen: set[ClaimId] = set()
    while not links or owner != start.owner:
        link = came_from[owner]
        assert link[0].id not in seen
        seen.add(link[0].id)
        links.append(link)
        owner = link[0].owner
    return links[::-1]

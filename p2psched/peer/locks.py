"""What a peer answers about locks: whose turn it is, told to who waits for it, and who holds which.

Who waits is woken by the command that changes its claim, and nobody else is. What a peer says that
hears no leader may be old: that a claim holds is no more than that it did, for the lease decides.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Final

from p2psched.core import locks
from p2psched.core.lock_table import Claim, Lock, Locks
from p2psched.core.machine import Machine
from p2psched.model.errors import Unavailable
from p2psched.model.lock_actions import ClaimId
from p2psched.model.lock_messages import (
    AwaitLock,
    ClaimView,
    ListLocks,
    LockList,
    LockNow,
    LockView,
)
from p2psched.peer.roster import NO_QUORUM
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.ports.engine import Engine

WAIT_MS_MAX: Final = 30_000  # longest wait in one call
LOCKS_TOLD_MAX: Final = 500  # in one answer
CLAIMS_TOLD_MAX: Final = 8  # holders of one lock, and as many waiters: an answer fits a frame


class LocksApi:
    """A part of the API, see `peer.api`. `linearize`: as `Reads.linearize`."""

    def __init__(
        self, scheduling: SchedulerLoop, ledger: Engine, linearize: Callable[[], Awaitable[None]]
    ) -> None:
        self._wakes = scheduling.wakes
        self._machine = scheduling.scheduler.machine
        self._ledger = ledger
        self._linearize = linearize

    async def wait(self, body: AwaitLock) -> LockNow:
        """Raises Unavailable if it is not known here what there is to know."""
        if body.claim not in self._machine.lock_claims:  # or not yet, here
            await self._linearize()
        try:
            async with asyncio.timeout(min(body.wait_ms, WAIT_MS_MAX) / 1000):
                while self._waits(body.claim):
                    await self._wakes.wait(body.claim)
        except TimeoutError:
            if not self._ledger.engine.raft.leader_is_live():
                raise Unavailable(NO_QUORUM) from None  # others may know more
        claim = self._machine.lock_claims.get(body.claim)
        return LockNow(None if claim is None else locks.standing(self._machine, claim))

    def _waits(self, name: ClaimId) -> bool:
        claim = self._machine.lock_claims.get(name)
        return claim is not None and not claim.token


def lock_list(machine: Machine, asked: ListLocks) -> LockList:
    """As of what is applied here."""
    s = machine.locks
    limit = max(1, min(asked.limit, LOCKS_TOLD_MAX))
    fitting = (n for n in s.by_name if n > asked.after and n.startswith(asked.prefix))
    names = heapq.nsmallest(limit + 1, fitting)
    return LockList(tuple(_view(s, s.by_name[n]) for n in names[:limit]), len(names) > limit)


def _view(s: Locks, lock: Lock) -> LockView:
    return LockView(
        lock.name,
        lock.capacity,
        _claims(s, lock.holders),
        len(lock.holders),
        _claims(s, lock.waiters),
        len(lock.waiters),
    )


def _claims(s: Locks, names: Iterable[ClaimId]) -> tuple[ClaimView, ...]:
    return tuple(_claim_view(s.claims[name]) for name in islice(names, CLAIMS_TOLD_MAX))


def _claim_view(claim: Claim) -> ClaimView:
    permits = claim.units if claim.capacity > 1 else 1
    return ClaimView(claim.id, claim.label, claim.token, claim.shared, permits)

"""The leases on exclusive tasks that run, at their owner: it has them renewed (ADR 0063).

A lease counts from before its `Started` was sent, by the clock of this machine, so it is over here
before it is in the ledger. Whoever watches over the processes ends what is over (`HoldLease`, and
`Batch.until_ms`); what runs out of time is told to end a little earlier. One renewal of a grant is
on its way at a time, for all that runs under it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from p2psched.core.levels import GONE_LEVEL
from p2psched.core.owned import Running
from p2psched.core.state import LedgerState
from p2psched.model.commands import Grant, Outcome, Placed
from p2psched.model.ids import JobId
from p2psched.model.once import Once, Started
from p2psched.model.taskset import TaskSet

RENEWALS: Final = 3  # in the time of a lease
LEAVE_MS: Final = 700  # that a clean stop waits for what is exclusive to end, and for the ledger
EARLY: Final = 10  # a task is told to end so large a part of its lease before that is over


class HoldLease(msgspec.Struct, frozen=True):
    """What this batch runs may run until then, by this machine's clock."""

    batch: int
    until_ms: int


class Leasing:
    """Of one owner."""

    def __init__(self, state: LedgerState, running: Mapping[int, Running]) -> None:
        self._state = state
        self._running = running
        self._sent: dict[int, tuple[JobId, Grant, int]] = {}  # by request; when it was sent
        self._told: list[HoldLease] = []
        self._leaves_ms: int | None = None  # since when its peer wants to stop

    @property
    def is_under_way(self) -> bool:
        """Time alone may make it renew a lease, or end what runs."""
        return bool(self._running) and any(run.until_ms for run in self._running.values())

    def take(self) -> list[HoldLease]:
        """What the executor has to hear."""
        told, self._told = self._told, []
        return told

    def leave(self, now_ms: int, *, waits: bool) -> bool:
        """Its peer wants to stop: what is exclusive ends from now on. True once that is over and
        told, unless that `waits`; and if it takes too long."""
        if self._state.level < GONE_LEVEL:
            return True
        if self._leaves_ms is None:
            self._leaves_ms = now_ms
        runs = any(run.until_ms for run in self._running.values())
        return not (runs or waits) or now_ms >= self._leaves_ms + LEAVE_MS

    def lapsing(self, now_ms: int) -> list[int]:
        """Batches that should end now, while there is time for that. Each is named once."""
        found: list[int] = []
        for number, run in self._running.items():
            early_ms = run.batch.spec.lease_ms // EARLY
            leaves = self._leaves_ms is not None
            is_due = leaves or now_ms >= run.until_ms - early_ms
            if run.until_ms and not run.stopped and is_due:
                run.stopped, run.leaves = True, leaves
                found.append(number)
        return found

    def propose(self, by: Callable[[Once], int], now_ms: int) -> None:
        """Renewals that are due. `by`: gives the number of the proposal."""
        due: dict[tuple[JobId, Grant], list[TaskSet]] = {}
        for run in self._running.values():
            if run.until_ms and not run.stopped and _is_due(run, now_ms):
                due[run.batch.job, run.batch.grant] = []
        for job, grant, _ in self._sent.values() if due else ():
            due.pop((job, grant), None)
        for run in self._running.values() if due else ():
            key = run.batch.job, run.batch.grant
            if key in due and not run.stopped:
                due[key].append(run.left)
        for (job, grant), parts in due.items():
            known = self._state.jobs.get(job)
            held = known.grants.get(grant) if known is not None else None
            tasks = TaskSet.union(parts)
            if held is not None and tasks and self._state.is_live(held.peer, held.incarnation):
                step = Started(grant, tasks, held.peer, held.incarnation)
                self._sent[by(Once(job, step))] = (job, grant, now_ms)

    def on_outcome(self, request: int, outcome: Outcome) -> bool:
        """True if it was one of ours. What a repeat comes to says nothing: the next one is due."""
        found = self._sent.pop(request, None)
        if found is None:
            return False
        job, grant, sent_ms = found
        tasks = taken(outcome)
        for run in self._running.values():
            batch = run.batch
            is_meant = run.until_ms and (batch.job, batch.grant) == (job, grant)
            if is_meant and not run.stopped and not batch.tasks - tasks:
                run.until_ms = max(run.until_ms, sent_ms + batch.spec.lease_ms)
                self._told.append(HoldLease(batch.id, run.until_ms))
        return True


def taken(outcome: Outcome) -> TaskSet:
    """Of a `Started`: what has a lease by it, for certain."""
    return outcome.tasks if isinstance(outcome, Placed) else TaskSet()


def _is_due(run: Running, now_ms: int) -> bool:
    lease_ms = run.batch.spec.lease_ms
    return now_ms >= run.until_ms - lease_ms + lease_ms // RENEWALS

"""Tasks that must not start twice, between their owner's queue and its slots (ADR 0059).

Each has a slot kept for it, so that it starts as soon as its `Started` is committed, and is never
one of many that may have begun. What came of a proposal the state says: its outcome may be that of
a repeat. What may not start goes back to the front of the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from p2psched.core.jobs import Job
from p2psched.core.known_jobs import KnownJobs
from p2psched.core.leasing import taken
from p2psched.core.owned import Queued
from p2psched.core.state import LedgerState
from p2psched.core.waiting import Waiting
from p2psched.model.commands import Grant, Outcome
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.once import Gone, Once, Started, Unsure
from p2psched.model.taskset import TaskSet

PATIENCE_MS: Final = 2_000  # a commit that takes longer keeps no slot from others


class Starting:
    """Of one owner."""

    def __init__(self, state: LedgerState, jobs: KnownJobs, queue: Waiting) -> None:
        self._state = state
        self._jobs = jobs
        self._queue = queue
        self._wanted: list[tuple[Queued, int]] = []  # with the slots that are kept
        self._proposed: dict[int, list[tuple[Queued, int]]] = {}  # by request
        self._unsure: list[Once] = []
        self._given_up: dict[int, Once] = {}  # what was said so, by request
        self.slots = 0  # kept for all of these
        self._sent_ms: dict[int, int] = {}  # of `_proposed`
        self._is_stalled = False

    # --- what comes in ---

    def _want_first(self, job: Job, *, free: int, slots: int) -> bool:
        """The first task of the queue shall start: one of this job, and it takes so many slots.
        False if it has to wait: for a slot, or while the ledger takes this peer for lost."""
        queued = self._queue.first
        held = job.grants.get(queued.grant)
        if held is None or not self._state.is_live(held.peer, held.incarnation):
            return False
        if self.slots + slots > free:
            return False
        tasks = queued.tasks.take(1)
        self._wanted.append((Queued(queued.job, queued.grant, queued.attempt, tasks), slots))
        self._queue.take_first(tasks)
        self.slots += slots
        return True

    @property
    def kept(self) -> int:
        """Slots that nothing else may take."""
        return 0 if self._is_stalled else self.slots

    def goes_on(self, job: Job, *, free: int, slots: int) -> bool:
        """As `want_first`. While the ledger is silent what needs it goes behind all else."""
        if self._want_first(job, free=free, slots=slots):
            return True
        if not self._is_stalled:
            return False
        return self._queue.put_last(lambda queued: bool(self._jobs[queued.job].spec.start))

    def take_back(self, queued: Queued, spec: JobSpec, *, leaves: bool = False) -> None:
        """A batch is over, and these of it have no result. `leaves`: as in `Running`."""
        if leaves:
            self._unsure.append(Once(queued.job, Gone(queued.grant, queued.tasks)))
        elif queued.begun and spec.start:
            self.lose(queued.job, queued.grant, queued.tasks)
        else:
            self._queue.put_first(queued)

    def lose(self, job: JobId, grant: Grant, tasks: TaskSet) -> None:
        """These have begun, run no more, and nobody knows how they ended."""
        if tasks.ranges:
            self._unsure.append(Once(job, Unsure(grant, tasks)))

    def revoke(self, job: JobId, grant: Grant, tasks: TaskSet) -> None:
        for parts in (self._wanted, *self._proposed.values()):
            for part, slots in list(parts):
                if (part.job, part.grant) == (job, grant):
                    part.tasks = part.tasks - tasks
                    if not part.tasks.ranges:
                        parts.remove((part, slots))
                        self.slots -= slots

    # --- what goes out ---

    def propose(self, by: Callable[[Once], int], now_ms: int) -> None:
        """What this turn led to. `by`: gives the number of the proposal."""
        if self._wanted or self._unsure:
            for command in self._next_round():
                self._proposed_as(by(command), command, now_ms)
        if self._sent_ms or self._is_stalled:
            oldest_ms = next(iter(self._sent_ms.values()), now_ms)
            self._is_stalled = now_ms - oldest_ms > PATIENCE_MS

    @property
    def releases(self) -> bool:
        """Somebody shall hear that exclusive tasks run here no more."""
        said = (*self._unsure, *self._given_up.values())
        return any(isinstance(command.step, Gone) for command in said)

    @property
    def is_under_way(self) -> bool:
        """Something waits for the ledger, or did for too long."""
        return bool(self._sent_ms) or self._is_stalled

    def _next_round(self) -> list[Once]:
        """One command for each grant."""
        commands, self._unsure = self._unsure, []
        groups: dict[tuple[JobId, Grant], list[TaskSet]] = {}
        for part, _ in self._wanted:
            groups.setdefault((part.job, part.grant), []).append(part.tasks)
        for (job, grant), tasks in groups.items():
            held = self._state.jobs[job].grants.get(grant)
            if held is not None:
                started = Started(grant, TaskSet.union(tasks), held.peer, held.incarnation)
                commands.append(Once(job, started))
        return commands

    def _proposed_as(self, request: int, command: Once, now_ms: int) -> None:
        if isinstance(command.step, Started):
            key = command.job, command.step.grant
            mine = [entry for entry in self._wanted if (entry[0].job, entry[0].grant) == key]
            self._wanted = [entry for entry in self._wanted if entry not in mine]
            self._proposed[request], self._sent_ms[request] = mine, now_ms
        else:
            self._given_up[request] = command

    def on_outcome(self, request: int, outcome: Outcome) -> bool:
        """True if it was one of ours: then its tasks are the first of the queue."""
        if self._given_up.pop(request, None) is not None:
            return True
        entries = self._proposed.pop(request, None)
        sent_ms = self._sent_ms.pop(request, 0)
        for part, slots in entries or ():
            self.slots -= slots
            part.cleared = True
            job = self._state.jobs.get(part.job)  # None: forgotten since, and about to be revoked
            lease_ms = job.spec.lease_ms if job is not None else 0
            if lease_ms and not part.tasks - taken(outcome):
                part.until_ms = sent_ms + lease_ms
            self._queue.put_first(part)
        return entries is not None

    def is_clear(self, part: Queued) -> bool:
        """True if the ledger says that all of these may have begun, and that here."""
        if not part.cleared:
            return False
        job = self._state.jobs.get(part.job)
        held = job.grants.get(part.grant) if job is not None else None
        if job is None or held is None or not self._state.is_live(held.peer, held.incarnation):
            return False
        if job.spec.lease_ms and not part.until_ms:
            return False  # that it started the ledger knows, and not for how long
        return not part.tasks - (held.started & held.tasks)

    def standstill(self, part: Queued) -> str:
        """Why these don't start though a slot is free, if that is the ledger's to say."""
        if self._wanted or self._proposed:
            return "it must not start twice: the ledger has not taken yet that it starts"
        job = self._state.jobs.get(part.job)
        held = job.grants.get(part.grant) if job is not None else None
        if held is None or not self._state.is_live(held.peer, held.incarnation):
            return "it must not start twice: the ledger takes this peer for lost"
        return ""

    def awaits(self, request: int) -> bool:
        return request in self._proposed or request in self._given_up

    def parts(self) -> Iterator[tuple[JobId, Grant, TaskSet]]:
        for entries in (self._wanted, *self._proposed.values()):
            for part, _ in entries:
                yield part.job, part.grant, part.tasks
        for command in (*self._unsure, *self._given_up.values()):
            if isinstance(command.step, Unsure | Gone):
                yield command.job, command.step.grant, command.step.tasks

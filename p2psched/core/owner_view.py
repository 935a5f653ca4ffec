"""What an owner has, and what others may ask of it. It decides and changes nothing: see `owner`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from p2psched.core.departing import Departing
from p2psched.core.duty import Duty
from p2psched.core.expectations import Expectations
from p2psched.core.jobs import Job
from p2psched.core.known_jobs import KnownJobs
from p2psched.core.leasing import Leasing
from p2psched.core.making_way import MakingWay
from p2psched.core.outbox import Outbox
from p2psched.core.owned import Queued, Running
from p2psched.core.owner_load import owner_load
from p2psched.core.pacing import Pacing
from p2psched.core.starting import Starting
from p2psched.core.state import LedgerState
from p2psched.core.verdicts import Verdicts
from p2psched.core.waiting import Waiting
from p2psched.model.blob import BlobRef
from p2psched.model.commands import Grant, KeptGrant
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.limits import KEPT_RANGES_MAX
from p2psched.model.load import LoadReport
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.reconcile import OwnedPart
from p2psched.model.taskset import EMPTY, TaskSet

READY_US_MIN: Final = 15_000  # a slot: expected work with the executor that is worth taking back
SOON_US: Final = 10_000  # a slot: expected work that is over before more could be here
OVERDUE_MS: Final = 500  # what is that short, and isn't over by then, may take much longer


class OwnerView:
    def __init__(self, machine: LedgerState, *, slots: int, offers: Offers = NOTHING) -> None:
        self._machine = machine
        self._slots = slots
        self._offers = offers
        self._jobs = KnownJobs(machine)
        self._queue = Waiting(self._jobs.priority_of)
        self.duty = Duty(slots)  # of who has a share of the time only; its peer says so
        self._running: dict[int, Running] = {}
        self._busy = 0  # slots that these take, one behind another
        self._short_us = 0  # what the short ones of these are expected to take
        self.outbox = self._outbox = Outbox()
        self.departing = Departing(machine)
        self.starting = Starting(machine, self._jobs, self._queue)
        self.leasing = Leasing(machine, self._running)
        self._expected = Expectations()
        self.pacing: Final = Pacing(machine, self._expected.measured_ms)
        self.making_way: Final = MakingWay(
            *(machine, self._jobs, self._queue, self._running),
            told_ms=self.pacing.left_ms,
            measured_ms=self._expected.measured_ms,
            slots=slots,
        )
        self.next_batch = 1
        self.verdicts: Verdicts | None = None  # what is told of it, if anybody listens
        self.results_refused = 0
        self.moved_here = 0  # tasks that came from other peers

    def held(self) -> dict[tuple[JobId, Grant], TaskSet]:
        """Everything that this process still works on or has a result for."""
        held: dict[tuple[JobId, Grant], TaskSet] = {}
        for job, grant, tasks in self._all_parts():
            held[job, grant] = held.get((job, grant), EMPTY) | tasks
        return held

    def kept(self) -> tuple[KeptGrant, ...]:
        """What is held, as far as it fits one command: what is left out runs again."""
        kept = []
        ranges = 0
        for (job, grant), tasks in self.held().items():
            ranges += len(tasks.ranges)
            if tasks and ranges <= KEPT_RANGES_MAX:
                kept.append(KeptGrant(job, grant, tasks))
        return tuple(kept)

    def _all_parts(self) -> Iterator[tuple[JobId, Grant, TaskSet]]:
        for queued in (*self._queue, *self._queue.held()):
            yield queued.job, queued.grant, queued.tasks
        for run in self._running.values():
            yield run.batch.job, run.batch.grant, run.left
        yield from self.departing.parts()
        yield from self.starting.parts()
        for back in self.making_way.parts():
            yield back.job, back.grant, back.tasks
        yield from self._outbox.parts()

    def blobs(self) -> Iterator[BlobRef]:
        """Large results that the ledger has not judged yet."""
        return self._outbox.blobs()

    def load(self) -> LoadReport:
        """How busy it is, and how quick; without what others measure."""
        running = self._running.values()
        found = owner_load(self._jobs, self._slots, self._queue, running, self._expected)
        return msgspec.structs.replace(found, duty=self.duty.share)

    @property
    def has_queue(self) -> bool:
        """True if tasks wait that no batch was made of."""
        return bool(self._queue)

    @property
    def running_count(self) -> int:
        """Batches that run or stand ready, at most as many as have their own slot."""
        return min(self._slots, len(self._running))

    @property
    def queued_count(self) -> int:
        return (
            self._queue.count
            + sum(len(run.left) for run in self._running.values())
            - self.running_count
        )

    def running_batch(self, job: JobId, index: int) -> int | None:
        """The batch that holds this task and isn't over, if there is one here."""
        return next(
            (
                run.batch.id
                for run in self._running.values()
                if run.batch.job == job and index in run.left
            ),
            None,
        )

    def at_work(self) -> dict[JobId, int | None]:
        """Jobs that run or wait here, and how long each may without a majority, if it says."""
        names = dict.fromkeys(part.job for part in self.owned())
        return {name: self._jobs.max_disconnect_ms(name) for name in names}

    def owned(self) -> Iterator[OwnedPart]:
        """What runs, then what waits."""
        for run in self._running.values():
            batch = run.batch
            if run.left.ranges:
                yield OwnedPart(batch.job, batch.grant, batch.attempt, run.left)
        for queued in (*self._queue, *self._queue.held()):
            yield OwnedPart(queued.job, queued.grant, queued.attempt, queued.tasks)

    @property
    def batches(self) -> Mapping[int, Running]:
        """Handed to the executor, and not known to have ended."""
        return self._running

    @property
    def first(self) -> Queued | None:
        return self._queue.first if self._queue else None

    def cpus_of(self, job: JobId) -> int:
        return self._jobs[job].spec.cpus

    def specs(self, names: Iterable[JobId]) -> dict[JobId, JobSpec]:
        found = {name: self._jobs[name].full for name in dict.fromkeys(names)}
        return {name: spec for name, spec in found.items() if spec is not None}

    @property
    def held_back(self) -> tuple[JobId, ...]:
        """Jobs of `hold`."""
        return tuple(self._queue.held_jobs)

    def _task_us(self, job: Job) -> int:
        known, _ = self._expected.of(job.id, job.full.work) if job.full is not None else (None, 0)
        return known or job.estimate_us or self._machine.estimate_us

    @property
    def busy_us(self) -> int:
        """Expected work of what was handed to the executor."""
        jobs = self._machine.jobs
        return sum(
            len(run.left) * self._task_us(job) * run.slots
            for run in self._running.values()
            if (job := jobs.get(run.batch.job)) is not None
        )

    @property
    def owned_us(self) -> int:
        """Work that all of it is, by what the ledger has measured."""
        jobs, owned_us = self._machine.jobs, 0
        for part in self.owned():
            job = jobs.get(part.job)
            if job is not None:
                task_us = job.estimate_us or self._machine.estimate_us
                owned_us += len(part.tasks) * task_us * job.spec.cpus
        return owned_us

    def has_ready(self, wait_us: int) -> bool:
        """True if the executor may have tasks that it has not begun, and `wait_us` of work is there
        for each slot."""
        count = sum(len(run.left) for run in self._running.values())
        return count > min(self._slots, len(self._running)) and wait_us >= READY_US_MIN

    def is_hungry(self, now_ms: int) -> bool:
        """A slot has nothing to do, or all have nothing but a little that has been started. What
        should have been over long ago is not little, whatever its like took."""
        if self._queue or not self._slots:
            return False
        if self._busy < self._slots:
            return True
        begun_ms = now_ms - OVERDUE_MS
        little = all(run.short_us and run.since_ms > begun_ms for run in self._running.values())
        return little and self._short_us <= SOON_US * self._slots

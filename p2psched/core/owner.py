"""What a peer does with the tasks it owns: queue, run in batches, bring the results back.

Invariants: a task is in the queue, on its way back, in one running batch, waits for copies of its
result, or is in the outbox until the ledger has judged its result; nothing is started twice under
one grant and attempt; what was revoked is never proposed again. One round of results is in flight
at a time: what piles up leaves with the next. While its peer is drained, the queue is given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

import msgspec

from p2psched.core.batch_sizes import Full, batch_size, has_room
from p2psched.core.departing import Departing, Parting
from p2psched.core.expectations import Expectations
from p2psched.core.giving import Lot
from p2psched.core.jobs import Job
from p2psched.core.lots import lots_of
from p2psched.core.outbox import Outbox
from p2psched.core.owned import Queued, Running, fence_of, is_taken, to_move
from p2psched.core.owner_load import owner_load
from p2psched.core.pieces import split
from p2psched.core.starting import Starting
from p2psched.core.state import LedgerState
from p2psched.core.waiting import Waiting
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import Complete, Completed, GiveBack, Grant, KeptGrant, Outcome
from p2psched.model.execution import Batch, Ended, ExecutorEvent, Progress
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.limits import KEPT_RANGES_MAX
from p2psched.model.load import LoadReport
from p2psched.model.moves import Transfer
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.taskset import EMPTY, TaskSet

SOON_US: Final = 10_000  # a slot: expected work that is over before more could be here


class StartBatch(msgspec.Struct, frozen=True):
    batch: Batch


class StopBatch(msgspec.Struct, frozen=True):
    batch: int
    cause: Cause


class CopyBlobs(msgspec.Struct, frozen=True):
    """Large results are on this peer's disk: bring them to `copies` disks in all, as far as there
    are peers, and say `on_copied`."""

    number: int
    blobs: tuple[ResultBlob, ...]  # without holders
    copies: int


OwnerEffect = StartBatch | StopBatch | CopyBlobs


class Owner:
    """Mutable; lives as long as the process, across the peer's incarnations."""

    def __init__(self, machine: LedgerState, *, slots: int, offers: Offers = NOTHING) -> None:
        self._machine = machine
        self._slots = slots
        self._offers = offers
        self._queue = Waiting()
        self._running: dict[int, Running] = {}
        self._busy = 0  # slots that these take, one behind another
        self._short_us = 0  # what the short ones of these are expected to take
        self._outbox = Outbox()
        self.departing = Departing(machine)
        self.starting = Starting(machine, self._queue)
        self._expected = Expectations()
        self.next_batch = 1
        self.results_refused = 0
        self.moved_here = 0  # tasks that came from other peers

    # --- events ---

    def on_granted(self, job: Job, grant: Grant, tasks: TaskSet) -> None:
        if (held := job.grants.get(grant)) is not None and held.moves:
            self.moved_here += len(tasks)
        for attempt, part in job.attempts(tasks):
            self._queue.add(Queued(job.id, grant, attempt, part))

    def on_revoked(
        self, job: JobId, grant: Grant, tasks: TaskSet, cause: Cause
    ) -> list[OwnerEffect]:
        """Drop what is queued, end what runs. Results already on their way are refused there."""
        self._queue.revoke(job, grant, tasks)
        self._outbox.revoke(job, grant, tasks)
        self.starting.revoke(job, grant, tasks)
        effects: list[OwnerEffect] = []
        for run in self._running.values():
            if (run.batch.job, run.batch.grant) == (job, grant) and run.left & tasks:
                run.left = run.left - tasks
                run.stopped = True
                effects.append(StopBatch(run.batch.id, cause))
        return effects

    def on_executed(self, event: ExecutorEvent) -> list[OwnerEffect]:
        run = self._running.get(event.batch)
        effects: list[OwnerEffect] = []
        if run is None:
            return effects
        match event:
            case Progress(segments=segments):
                for segment in segments:
                    effects += self._take_result(run, segment)
            case Ended(unstarted=unstarted):
                del self._running[event.batch]
                self._busy -= run.slots
                self._short_us -= run.short_us
                for queued in run.unfinished(unstarted):
                    self.starting.take_back(queued, run.batch.spec)
        return effects

    def _take_result(self, run: Running, segment: Segment) -> list[OwnerEffect]:
        tasks = segment.tasks
        current = run.left & tasks
        run.left = run.left - tasks
        batch = run.batch
        if current != tasks:
            self.results_refused += len(tasks) - len(current)
        effects: list[OwnerEffect] = []
        for part in segment.parts(current):
            for piece in split(part, batch.spec.copies):
                if piece.blobs:
                    number = self._outbox.await_copies(batch.job, batch.grant, piece)
                    effects.append(CopyBlobs(number, piece.blobs, batch.spec.copies))
                else:
                    self._outbox.post(batch.job, batch.grant, piece)
        if current.ranges:  # else the job may have ended, and nobody would ever drop this
            count = segment.stop - segment.start
            mean_us = max(1, segment.busy_us // count)
            self._expected.on_measured(batch.job, batch.spec.work, mean_us, count)
        return effects

    def on_copied(self, number: int, blobs: Iterable[ResultBlob]) -> None:
        """`blobs` are those of the `CopyBlobs` with their holders: now the results may be told."""
        self._outbox.on_copied(number, blobs)

    # --- what to do next ---

    def start_batches(self) -> list[OwnerEffect]:
        """Fill free slots, and keep short batches ready behind busy ones: one each, and more as
        long as all that runs and stands ready is little. A ready batch keeps no slot waiting: the
        executor starts it wherever one is free."""
        effects: list[OwnerEffect] = []
        if not self._queue or self._outbox.is_full:
            return effects
        while self._queue:
            queued = self._queue.first
            job = self._machine.jobs[queued.job]
            assert job.full is not None, "tasks of an ended job are owned by nobody"
            cpus = min(job.spec.cpus, self._slots)
            if job.spec.start and not self.starting.is_clear(queued):
                if self.starting.goes_on(job, free=self._slots - self._busy, slots=cpus):
                    continue
                break
            known = self._expected.of(job.id, job.full.work)
            task_us, is_guess = (None, False) if job.spec.start else known  # none stands ready
            size = batch_size(
                *(job.spec.kind, len(queued.tasks), task_us), is_guess=is_guess, slots=self._slots
            )
            tasks = queued.tasks.take(1 if job.spec.checkpoint else size)
            expected_us = None if task_us is None else task_us * len(tasks)
            # Of a job with more tasks than a guess is worth, some are measured first.
            is_start = is_guess and len(tasks) < len(queued.tasks)
            if not self._has_room(cpus, task_us, None if is_start else expected_us) or (
                job.spec.needs is not None and is_taken(job.spec.needs, self._offers, self._running)
            ):
                break  # nothing overtakes: a task that needs many slots would wait for ever
            self._queue.take_first(tasks)
            effects.append(self._start(job.full, queued, tasks, cpus, expected_us))
        return effects

    def next_batches(self, *, starts_nothing: bool) -> list[OwnerEffect]:
        """As `start_batches`. Who is drained or leaves starts nothing, and ends what saves
        checkpoints, which goes on elsewhere."""
        if not starts_nothing:
            return self.start_batches()
        return [StopBatch(r.batch.id, Cause.PEER_LOST) for r in to_move(self._running.values())]

    def _has_room(self, cpus: int, task_us: int | None, expected_us: int | None) -> bool:
        full = Full(
            self._slots, self._busy + self.starting.kept, len(self._running), self._short_us
        )
        return has_room(full, cpus, task_us, expected_us)

    def _start(
        self, spec: JobSpec, queued: Queued, tasks: TaskSet, cpus: int, expected_us: int | None
    ) -> StartBatch:
        batch = Batch(
            id=self.next_batch,
            job=queued.job,
            spec=spec,
            tasks=tasks,
            grant=queued.grant,
            attempt=queued.attempt,
            fence=fence_of(self._machine.jobs[queued.job], queued),
            expected_us=expected_us,
        )
        self.next_batch += 1
        run = self._running[batch.id] = Running(batch, cpus)
        self._busy += run.slots
        self._short_us += run.short_us
        return StartBatch(batch)

    def next_round(self) -> list[Complete]:
        """Results to propose now, in one round; empty while one is in flight. The caller numbers
        them and says so with `proposed`."""
        return self._outbox.next_round()

    def give_back(self) -> list[GiveBack]:
        """What no batch was made of, while this peer is drained; otherwise as `next_round`."""
        if self.departing.is_giving_back or not self._queue:
            return []
        return self._queue.give_back()

    def proposed(self, request: int, command: Complete | Parting) -> None:
        if isinstance(command, Complete):
            self._outbox.proposed(request, command)
        else:
            self.departing.proposed(request, command)

    def proposed_as(self, request: int) -> Complete | None:
        """The results that were proposed so, and are not judged yet."""
        return self._outbox.in_flight(request)

    def on_outcome(self, request: int, outcome: Outcome) -> bool:
        """True if it was one of ours."""
        if self.starting.on_outcome(request):
            return True
        parting = self.departing.on_outcome(request, outcome)
        if parting is not None:
            if isinstance(parting, Transfer):
                self._take_again(parting)
            return True
        if not self._outbox.on_outcome(request):
            return False
        if isinstance(outcome, Completed):
            self.results_refused += len(outcome.stale)
        return True

    def awaits_state(self, request: int) -> bool:
        """What came of this proposal the state says, not its outcome."""
        return self.departing.awaits(request) or self.starting.awaits(request)

    def _take_again(self, kept: Transfer) -> None:
        """What could not move is next."""
        job = self._machine.jobs.get(kept.job)
        for attempt, tasks in job.attempts(kept.tasks) if job is not None else ():
            self._queue.put_first(Queued(kept.job, kept.grant, attempt, tasks))

    def on_job_ended(self, job: JobId) -> None:
        self._expected.forget(job)

    def forget_ended(self) -> None:
        """Of jobs that ended without anybody saying so here, because a snapshot was taken."""
        self._expected.keep(self._machine.running)

    # --- for the watchdog ---

    @property
    def batches(self) -> Mapping[int, Running]:
        """Handed to the executor, and not known to have ended."""
        return self._running

    @property
    def first(self) -> Queued | None:
        return self._queue.first if self._queue else None

    def standstill(self) -> str:
        """Why nothing is started though a slot is free, if that is right."""
        if self._outbox.is_full:
            return "results wait for the ledger, or for copies: nothing starts before they are kept"
        needs = self._machine.jobs[self._queue.first.job].spec.needs
        if needs is not None and is_taken(needs, self._offers, self._running):
            return "GPUs or memory that it needs are still in use here"
        return ""

    def reckon(self) -> None:
        """Count anew."""
        self._busy = sum(run.slots for run in self._running.values())
        self._short_us = sum(run.short_us for run in self._running.values())

    def lose(self, batch: int) -> GiveBack:
        """The executor has it no more: nothing of it may be started under this grant."""
        run = self._running.pop(batch)
        self.reckon()
        return GiveBack(run.batch.job, run.batch.grant, run.left)

    # --- what others may have ---

    def lots(self, peer: PeerId, taker_slots: int, taker: Offers) -> list[Lot]:
        wanted = partial(lots_of, self._machine, self._queue, self._task_us)
        return wanted(peer=peer, taker_slots=taker_slots, taker=taker)

    def set_aside(self, chosen: Iterable[tuple[int, int]]) -> list[tuple[JobId, Grant, TaskSet]]:
        """Of these entries of the queue so many tasks, from the end; the caller proposes at once
        what becomes of them, and says so with `proposed`."""
        return self._queue.set_aside(chosen)

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
    def is_hungry(self) -> bool:
        """A slot has nothing to do, or all have nothing but a little that has been started."""
        if self._queue or not self._slots:
            return False
        if self._busy < self._slots:
            return True
        little = all(run.short_us for run in self._running.values())
        return little and self._short_us <= SOON_US * self._slots

    # --- what others may ask ---

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
        for queued in self._queue:
            yield queued.job, queued.grant, queued.tasks
        for run in self._running.values():
            yield run.batch.job, run.batch.grant, run.left
        yield from self.departing.parts()
        yield from self.starting.parts()
        yield from self._outbox.parts()

    def blobs(self) -> Iterator[BlobRef]:
        """Large results that the ledger has not judged yet."""
        return self._outbox.blobs()

    def load(self) -> LoadReport:
        """How busy it is, and how quick; without what others measure."""
        running = self._running.values()
        return owner_load(self._machine, self._slots, self._queue, running, self._expected)

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

"""What a peer does with the tasks it owns: queue, run in batches, bring the results back.

Invariants: a task is in the queue, on its way back, in one running batch, waits for copies of its
result, or is in the outbox until the ledger has judged its result; nothing is started twice under
one grant and attempt; what was revoked is never proposed again. One round of results is in flight
at a time: what piles up leaves with the next. While its peer is drained, the queue is given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from p2psched.core.expectations import Expectations
from p2psched.core.jobs import Job
from p2psched.core.owned import PROGRAM_BATCH_US, Queued, Running, Uncopied
from p2psched.core.owner_load import owner_load
from p2psched.core.pieces import entry_size, split
from p2psched.core.state import LedgerState
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import Complete, Completed, GiveBack, Grant, KeptGrant, Outcome
from p2psched.model.execution import Batch, Ended, ExecutorEvent, Progress
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.limits import ENTRY_BYTES_MAX, GIB, KEPT_RANGES_MAX, MIB
from p2psched.model.load import LoadReport
from p2psched.model.taskset import EMPTY, TaskSet

BATCH_US: Final = 50_000  # expected work in one batch: cost is paid per batch, loss is at most one
BATCH_US_MIN: Final = 2_000  # expected work worth a message to a worker
READY_US: Final = BATCH_US // 2  # a slot: expected work that runs or stands ready in short batches
READY_MAX: Final = 32  # a slot: such batches
# What a batch may take by a guess from other jobs of the same function: if this job's tasks take a
# hundred times as long, the batch is as long as any.
GUESSED_US: Final = BATCH_US // 100
FUNCTION_BATCH_MAX: Final = 1024
PROGRAM_BATCH_US_MIN: Final = 20_000
PROGRAM_BATCH_MAX: Final = 256
OUTBOX_BYTES_MAX: Final = 64 * MIB  # results that wait for the ledger; beyond it nothing starts
UNCOPIED_BYTES_MAX: Final = GIB  # large results that wait for their copies; likewise
_ROUND_BYTES_MAX: Final = ENTRY_BYTES_MAX // 2
GIVEN_BACK_MAX: Final = 256  # grants whose tasks are given back in one round; the next goes on
GENERATION: Final = 1  # of fences; that of the ledger stands in the high bits of grants


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

    def __init__(self, machine: LedgerState, *, slots: int) -> None:
        self._machine = machine
        self._slots = slots
        self._queue: deque[Queued] = deque()
        self._running: dict[int, Running] = {}
        self._busy = 0  # slots that these take, one behind another
        self._short_us = 0  # what the short ones of these are expected to take
        self._outbox: deque[tuple[JobId, Grant, Segment]] = deque()
        self._outbox_bytes = 0
        self._uncopied: dict[int, Uncopied] = {}
        self._next_copy = 1
        self._in_flight: dict[int, Complete] = {}  # request -> what it proposes
        self._returning: dict[int, GiveBack] = {}  # likewise; none of it starts any more
        self._expected = Expectations()
        self._next_batch = 1
        self.results_refused = 0

    # --- events ---

    def on_granted(self, job: Job, grant: Grant, tasks: TaskSet) -> None:
        for attempt, part in job.attempts(tasks):
            self._queue.append(Queued(job.id, grant, attempt, part))

    def on_revoked(
        self, job: JobId, grant: Grant, tasks: TaskSet, cause: Cause
    ) -> list[OwnerEffect]:
        """Drop what is queued, end what runs. Results already on their way are refused there."""
        for queued in self._queue:
            if queued.job == job and queued.grant == grant:
                queued.tasks = queued.tasks - tasks
        self._queue = deque(queued for queued in self._queue if queued.tasks)
        kept = [
            (j, g, part)
            for j, g, segment in self._outbox
            for part in (
                [segment] if (j, g) != (job, grant) else segment.parts(segment.tasks - tasks)
            )
        ]
        self._outbox = deque(kept)
        self._outbox_bytes = sum(len(segment.data) for _, _, segment in kept)
        for waiting in self._uncopied.values():
            if (waiting.job, waiting.grant) == (job, grant):
                waiting.segments = [
                    part
                    for segment in waiting.segments
                    for part in segment.parts(segment.tasks - tasks)
                ]
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
                batch = run.batch
                self._busy -= run.slots
                self._short_us -= run.short_us
                # What had begun was ended by us together with what was revoked: another attempt,
                # with a fence of its own.
                for attempt, tasks in (
                    (batch.attempt, run.left & unstarted),
                    (batch.attempt + 1, run.left - unstarted),
                ):
                    if tasks:
                        self._queue.appendleft(Queued(batch.job, batch.grant, attempt, tasks))
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
                    effects.append(self._copy(batch, piece))
                else:
                    self._post(batch.job, batch.grant, piece)
        if current.ranges:  # else the job may have ended, and nobody would ever drop this
            count = segment.stop - segment.start
            mean_us = max(1, segment.busy_us // count)
            self._expected.on_measured(batch.job, batch.spec.work, mean_us, count)
        return effects

    def _post(self, job: JobId, grant: Grant, segment: Segment) -> None:
        self._outbox.append((job, grant, segment))
        self._outbox_bytes += len(segment.data)

    def _copy(self, batch: Batch, segment: Segment) -> CopyBlobs:
        number, self._next_copy = self._next_copy, self._next_copy + 1
        self._uncopied[number] = Uncopied(batch.job, batch.grant, segment)
        return CopyBlobs(number, segment.blobs, batch.spec.copies)

    def on_copied(self, number: int, blobs: Iterable[ResultBlob]) -> None:
        """`blobs` are those of the `CopyBlobs` with their holders: now the results may be told."""
        waiting = self._uncopied.pop(number)
        found = {(blob.index, blob.name): blob for blob in blobs}
        for segment in waiting.segments:  # without what was revoked meanwhile
            held = tuple(found[blob.index, blob.name] for blob in segment.blobs)
            self._post(waiting.job, waiting.grant, msgspec.structs.replace(segment, blobs=held))

    # --- what to do next ---

    def start_batches(self) -> list[OwnerEffect]:
        """Fill free slots, and keep short batches ready behind busy ones: one each, and more as
        long as all that runs and stands ready is little. A ready batch keeps no slot waiting: the
        executor starts it wherever one is free."""
        effects: list[OwnerEffect] = []
        if not self._queue:
            return effects
        uncopied_bytes = sum(waiting.blob_bytes for waiting in self._uncopied.values())
        if self._outbox_bytes > OUTBOX_BYTES_MAX or uncopied_bytes > UNCOPIED_BYTES_MAX:
            return effects
        while self._queue:
            queued = self._queue[0]
            job = self._machine.jobs[queued.job]
            assert job.full is not None, "tasks of an ended job are owned by nobody"
            task_us, is_guess = self._expected.of(job.id, job.full.work)
            tasks = queued.tasks.take(self._batch_size(job, len(queued.tasks), task_us, is_guess))
            expected_us = None if task_us is None else task_us * len(tasks)
            cpus = min(job.spec.cpus, self._slots)
            # Of a job with more tasks than a guess is worth, some are measured first.
            is_start = is_guess and len(tasks) < len(queued.tasks)
            if not self._has_room(cpus, task_us, None if is_start else expected_us):
                break  # nothing overtakes: a task that needs many slots would wait for ever
            queued.tasks = queued.tasks - tasks
            if not queued.tasks.ranges:
                self._queue.popleft()
            effects.append(self._start(job.full, queued, tasks, cpus, expected_us))
        return effects

    def _has_room(self, cpus: int, task_us: int | None, expected_us: int | None) -> bool:
        """True if one more batch may start: without `expected_us` not more than one stands ready
        behind each slot."""
        busy = self._busy + cpus
        if busy <= self._slots:
            return True
        if task_us is None or task_us * 2 > BATCH_US:
            return False
        if busy <= self._slots * 2:
            return True
        if expected_us is None or len(self._running) >= self._slots * READY_MAX:
            return False
        return self._short_us + expected_us <= self._slots * READY_US

    def _batch_size(self, job: Job, queued_count: int, task_us: int | None, is_guess: bool) -> int:
        if task_us is None:
            return 1
        if queued_count == 1:
            return 1
        is_function = job.spec.kind == "function"
        most = FUNCTION_BATCH_MAX if is_function else PROGRAM_BATCH_MAX
        most_us = BATCH_US if is_function else PROGRAM_BATCH_US
        least_us = BATCH_US_MIN if is_function else PROGRAM_BATCH_US_MIN
        fair = -(-queued_count // self._slots)
        # Leave some for the other slots, unless it is too little to be worth a message.
        share = max(-(-fair // 2), min(fair, least_us // task_us))
        return max(1, min(most, share, (GUESSED_US if is_guess else most_us) // task_us))

    def _start(
        self, spec: JobSpec, queued: Queued, tasks: TaskSet, cpus: int, expected_us: int | None
    ) -> StartBatch:
        batch = Batch(
            id=self._next_batch,
            job=queued.job,
            spec=spec,
            tasks=tasks,
            grant=queued.grant,
            attempt=queued.attempt,
            fence=self._fence(queued),
            expected_us=expected_us,
        )
        self._next_batch += 1
        run = self._running[batch.id] = Running(batch, cpus)
        self._busy += run.slots
        self._short_us += run.short_us
        return StartBatch(batch)

    def _fence(self, queued: Queued) -> str:
        """The token of the lock that its tasks hold, or (generation, grant, attempt)."""
        held = self._machine.jobs[queued.job].grants.get(queued.grant)
        if held is not None and held.token:
            return str(held.token)
        return f"{GENERATION}.{queued.grant}.{queued.attempt}"

    def next_round(self) -> list[Complete]:
        """Results to propose now, in one round; empty while one is in flight. The caller numbers
        them and says so with `proposed`."""
        if self._in_flight or not self._outbox:
            return []
        size = 0
        groups: dict[tuple[JobId, Grant], list[Segment]] = {}
        while self._outbox:
            job, grant, segment = self._outbox[0]
            size += entry_size(segment)
            if groups and size > _ROUND_BYTES_MAX:
                break
            groups.setdefault((job, grant), []).append(segment)
            self._outbox.popleft()
            self._outbox_bytes -= len(segment.data)
        return [Complete(job, grant, tuple(parts)) for (job, grant), parts in groups.items()]

    def give_back(self) -> list[GiveBack]:
        """What no batch was made of, while this peer is drained; otherwise as `next_round`."""
        if self._returning or not self._queue:
            return []
        groups: dict[tuple[JobId, Grant], list[TaskSet]] = {}
        while self._queue and len(groups) < GIVEN_BACK_MAX:
            queued = self._queue.popleft()
            groups.setdefault((queued.job, queued.grant), []).append(queued.tasks)
        return [GiveBack(job, grant, TaskSet.union(of)) for (job, grant), of in groups.items()]

    def proposed(self, request: int, command: Complete | GiveBack) -> None:
        if isinstance(command, GiveBack):
            self._returning[request] = command
        else:
            self._in_flight[request] = command

    def on_outcome(self, request: int, outcome: Outcome) -> bool:
        """True if it was one of ours."""
        if self._returning.pop(request, None) is not None:
            return True
        command = self._in_flight.pop(request, None)
        if command is None:
            return False
        if isinstance(outcome, Completed):
            self.results_refused += len(outcome.stale)
        return True

    def on_job_ended(self, job: JobId) -> None:
        self._expected.forget(job)

    def forget_ended(self) -> None:
        """Of jobs that ended without anybody saying so here, because a snapshot was taken."""
        self._expected.keep(self._machine.running)

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
        for returned in self._returning.values():
            yield returned.job, returned.grant, returned.tasks
        for waiting in self._uncopied.values():
            for segment in waiting.segments:
                yield waiting.job, waiting.grant, segment.tasks
        for job, grant, segment in self._outbox:
            yield job, grant, segment.tasks
        for command in self._in_flight.values():
            for segment in command.segments:
                yield command.job, command.grant, segment.tasks

    def blobs(self) -> Iterator[BlobRef]:
        """Large results that the ledger has not judged yet."""
        segments = [segment for _, _, segment in self._outbox]
        for waiting in self._uncopied.values():
            segments += waiting.segments
        for command in self._in_flight.values():
            segments += command.segments
        return (blob.ref for segment in segments for blob in segment.blobs)

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
        queued = sum(len(queued.tasks) for queued in self._queue)
        return queued + sum(len(run.left) for run in self._running.values()) - self.running_count

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

"""What an owner keeps of the tasks that it has: see `owner`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from p2psched.core.jobs import Job
from p2psched.model.commands import Grant
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.model.needs import Needs, Offers
from p2psched.model.taskset import TaskSet

# A program costs more than a call, so more time of them makes a message worth while.
PROGRAM_BATCH_US: Final = 100_000
GENERATION: Final = 1  # of fences; that of the ledger stands in the high bits of grants


class Queued:
    __slots__ = ("attempt", "begun", "cleared", "grant", "job", "tasks", "until_ms")

    def __init__(
        self, job: JobId, grant: Grant, attempt: int, tasks: TaskSet, *, begun: bool = False
    ) -> None:
        """`begun`: under this grant, and ended by us since."""
        self.begun = begun
        self.cleared = False  # of what must not start twice: it may start (see `starting`)
        self.until_ms = 0  # of what is exclusive and cleared: where its lease is over
        self.job = job
        self.grant = grant
        self.attempt = attempt
        self.tasks = tasks

    def continues(self, other: Queued) -> bool:
        """Both may be one entry, of which the other is the first part."""
        return (
            other.tasks.first < self.tasks.first
            and (self.job, self.grant, self.attempt) == (other.job, other.grant, other.attempt)
            and self.begun == other.begun
            and not (self.cleared or other.cleared)
        )


class Running:
    __slots__ = (
        "batch",
        "leaves",
        "left",
        "moves",
        "short_us",
        "since_ms",
        "slots",
        "stopped",
        "until_ms",
    )

    def __init__(self, batch: Batch, slots: int) -> None:
        self.batch = batch
        self.left = batch.tasks  # not known to have ended, and not revoked
        self.slots = slots
        expected_us = batch.expected_us or 0
        self.short_us = expected_us if expected_us <= PROGRAM_BATCH_US else 0  # 0 if it is long
        self.stopped = False
        self.until_ms = batch.until_ms  # and from there on what `leasing` says
        self.moves = False  # it is ended to be given back
        self.leaves = False  # it is exclusive, and ended because its peer stops
        self.since_ms = 0  # when it was handed over

    def give_back(self, tasks: TaskSet) -> Queued | None:
        """These have not begun, and won't here; what was revoked of them meanwhile is not ours."""
        tasks = self.left & tasks
        self.left = self.left - tasks
        batch = self.batch
        return Queued(batch.job, batch.grant, batch.attempt, tasks) if tasks.ranges else None

    def unfinished(self, unstarted: TaskSet) -> list[Queued]:
        """Of a batch that is over: what was not revoked and has no result. What had begun was ended
        by us together with what was revoked: another attempt, with a fence of its own."""
        batch = self.batch
        parts = (
            Queued(batch.job, batch.grant, batch.attempt, self.left & unstarted),
            Queued(batch.job, batch.grant, batch.attempt + 1, self.left - unstarted, begun=True),
        )
        return [queued for queued in parts if queued.tasks.ranges]


def to_move(running: Iterable[Running]) -> list[Running]:
    """Those that go on elsewhere from what they have saved. Each is named once. What must not start
    twice ends where it is."""
    may = [run for run in running if run.batch.spec.checkpoint and not run.batch.spec.start]
    found = [run for run in may if not run.moves]
    for run in found:
        run.moves = True
    return found


def fence_of(job: Job, queued: Queued) -> str:
    """The token of the lock that its tasks hold, or (generation, grant, attempt)."""
    held = job.grants.get(queued.grant)
    if held is not None and held.token:
        return str(held.token)
    return f"{GENERATION}.{queued.grant}.{queued.attempt}"


def is_taken(needs: Needs, offers: Offers, running: Mapping[int, Running]) -> bool:
    """True if what runs leaves too little for another such task. What it owns leaves enough, but a
    task that was taken away has what it has until its process has ended."""
    gpus, memory_mib = needs.gpus, needs.memory_mib
    if not (gpus or memory_mib):
        return False
    for run in running.values():
        other = run.batch.spec.needs
        if other is not None:
            gpus += other.gpus
            memory_mib += other.memory_mib
    return bool(running) and (gpus > offers.gpus or memory_mib > offers.memory_mib)


class Uncopied:
    """Results that wait for copies of what is large in them."""

    __slots__ = ("blob_bytes", "copies", "grant", "job", "segments")

    def __init__(self, job: JobId, grant: Grant, segment: Segment, copies: int) -> None:
        self.copies = copies
        self.job = job
        self.grant = grant
        self.segments = [segment]
        self.blob_bytes = sum(blob.ref.size for blob in segment.blobs)

"""What an owner keeps of the tasks that it has: see `owner`."""

from __future__ import annotations

from typing import Final

from p2psched.model.commands import Grant
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.model.taskset import TaskSet

# A program costs more than a call, so more time of them makes a message worth while.
PROGRAM_BATCH_US: Final = 100_000


class Queued:
    __slots__ = ("attempt", "grant", "job", "tasks")

    def __init__(self, job: JobId, grant: Grant, attempt: int, tasks: TaskSet) -> None:
        self.job = job
        self.grant = grant
        self.attempt = attempt
        self.tasks = tasks


class Running:
    __slots__ = ("batch", "left", "short_us", "slots", "stopped")

    def __init__(self, batch: Batch, slots: int) -> None:
        self.batch = batch
        self.left = batch.tasks  # not known to have ended, and not revoked
        self.slots = slots
        expected_us = batch.expected_us or 0
        self.short_us = expected_us if expected_us <= PROGRAM_BATCH_US else 0  # 0 if it is long
        self.stopped = False


class Uncopied:
    """Results that wait for copies of what is large in them."""

    __slots__ = ("blob_bytes", "grant", "job", "segments")

    def __init__(self, job: JobId, grant: Grant, segment: Segment) -> None:
        self.job = job
        self.grant = grant
        self.segments = [segment]
        self.blob_bytes = sum(blob.ref.size for blob in segment.blobs)

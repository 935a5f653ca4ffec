"""How tasks end."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model import chunks, limits
from p2psched.model.blob import ResultBlob
from p2psched.model.cause import Cause
from p2psched.model.taskset import TaskSet

_BUSY_US_MAX: Final = 2**53


class Segment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How the tasks `start` to `stop - 1` ended, all with the same cause.

    `data` is a chunk with one item a task: see `model.items`. `busy_us` is the execution time of
    all of them together. `blobs` are the parts of results that are too large for an item, in order
    of index.
    """

    start: int
    stop: int
    cause: Cause
    data: bytes
    busy_us: int = 0
    blobs: tuple[ResultBlob, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= limits.TASK_INDEX_MAX + 1:
            raise ValueError(f"not a range of tasks: {self.start} to {self.stop}")
        if not 0 <= self.busy_us <= _BUSY_US_MAX:
            raise ValueError(f"not a duration: {self.busy_us} µs")
        if self.blobs and any(not self.start <= blob.index < self.stop for blob in self.blobs):
            raise ValueError("a blob of a task that is not in this segment")

    @property
    def tasks(self) -> TaskSet:
        return TaskSet.of(self.start, self.stop)

    def check(self) -> None:
        """Raises ValueError unless the chunk holds one item for each task."""
        size = self.stop - self.start
        if chunks.check(self.data) != size:
            raise ValueError(f"{size} tasks, {chunks.count(self.data)} results")

    def parts(self, tasks: TaskSet) -> list[Segment]:
        """The segments of those of our tasks that are in `tasks`, which must not name others.
        Raises ValueError if the chunk is damaged."""
        size = self.stop - self.start
        if chunks.count(self.data) != size:
            raise ValueError(f"{size} tasks, {chunks.count(self.data)} results")
        if not tasks.ranges:
            return []
        if tasks.ranges == ((self.start, self.stop),):
            return [self]
        return [
            Segment(
                start,
                stop,
                self.cause,
                chunks.cut(self.data, start - self.start, stop - self.start),
                self.busy_us * (stop - start) // size,
                tuple(blob for blob in self.blobs if start <= blob.index < stop),
            )
            for start, stop in tasks.ranges
        ]

    def split(self) -> list[Segment]:
        """Pieces of at most SEGMENT_BYTES_MAX, or of one task each."""
        size = self.stop - self.start
        if len(self.data) <= limits.SEGMENT_BYTES_MAX or size == 1:
            return [self]
        middle = self.start + size // 2
        low, high = TaskSet.of(self.start, middle), TaskSet.of(middle, self.stop)
        return [
            piece for half in (low, high) for part in self.parts(half) for piece in part.split()
        ]

"""Sets of task indices as sorted ranges.

Invariants: ranges are non-empty, sorted, disjoint and not adjacent, so equal sets are equal values
with equal bytes. All operations cost O(ranges of both), never O(tasks): the hot path moves sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from p2psched.model.limits import TASK_INDEX_MAX

_DIGITS_MAX: Final = 20  # longer numbers are not even read; leading zeros are fine up to here
Range = tuple[int, int]  # start (included), stop (excluded)


class TaskSet(msgspec.Struct, frozen=True, array_like=True):
    """An immutable set of task indices, 0..TASK_INDEX_MAX."""

    ranges: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        last = -1
        for start, stop in self.ranges:
            if not last < start < stop <= TASK_INDEX_MAX + 1:
                raise ValueError(f"not a task set: range {start} to {stop} after {last}")
            last = stop

    @staticmethod
    def of(start: int, stop: int) -> TaskSet:
        """The indices `start` to `stop - 1`; empty if there are none."""
        return TaskSet(((start, stop),)) if start < stop else EMPTY

    @staticmethod
    def from_indices(indices: Iterable[int]) -> TaskSet:
        """Any order, duplicates allowed."""
        return TaskSet(tuple(_merge(sorted((index, index + 1) for index in indices))))

    @staticmethod
    def parse(text: str) -> TaskSet:
        """Read `0-99`, `7` or `0-9,20,30-39`; both ends are included. Raises ValueError."""
        ranges = []
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise ValueError(f"not an index or a range of indices: {part.strip()!r}")
            if max(len(first), len(last)) > _DIGITS_MAX or int(last or first) > TASK_INDEX_MAX:
                raise ValueError(f"an index is at most {TASK_INDEX_MAX}: {part.strip()[:40]!r}")
            start, stop = int(first), int(last if dash else first) + 1
            if start >= stop:
                raise ValueError(f"range runs backwards: {part.strip()!r}")
            ranges.append((start, stop))
        return TaskSet(tuple(_merge(sorted(ranges))))

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[int]:
        for start, stop in self.ranges:
            yield from range(start, stop)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and any(start <= index < stop for start, stop in self.ranges)

    def __str__(self) -> str:
        return ",".join(
            str(start) if stop == start + 1 else f"{start}-{stop - 1}"
            for start, stop in self.ranges
        )

    def __or__(self, other: TaskSet) -> TaskSet:
        if not other.ranges:
            return self
        if not self.ranges:
            return other
        return TaskSet(tuple(_merge(sorted(self.ranges + other.ranges))))

    def __and__(self, other: TaskSet) -> TaskSet:
        return TaskSet(tuple(_intersect(self.ranges, other.ranges)))

    def __sub__(self, other: TaskSet) -> TaskSet:
        if not other.ranges or not self.ranges:
            return self
        return TaskSet(tuple(_subtract(self.ranges, other.ranges)))

    @property
    def first(self) -> int:
        """The lowest index. The set must not be empty."""
        return self.ranges[0][0]

    def take(self, count: int) -> TaskSet:
        """The lowest `count` indices, or all if there are fewer."""
        taken = []
        for start, stop in self.ranges:
            if count <= 0:
                break
            stop = min(stop, start + count)
            taken.append((start, stop))
            count -= stop - start
        return TaskSet(tuple(taken))


EMPTY: Final = TaskSet()


def _merge(ranges: list[Range]) -> Iterator[Range]:
    """Join sorted ranges that touch or overlap."""
    held: Range | None = None
    for start, stop in ranges:
        if held is not None and start <= held[1]:
            held = (held[0], max(held[1], stop))
        else:
            if held is not None:
                yield held
            held = (start, stop)
    if held is not None:
        yield held


def _intersect(left: tuple[Range, ...], right: tuple[Range, ...]) -> Iterator[Range]:
    i = j = 0
    while i < len(left) and j < len(right):
        start, stop = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < stop:
            yield start, stop
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1


def _subtract(left: tuple[Range, ...], right: tuple[Range, ...]) -> Iterator[Range]:
    j = 0
    for start, stop in left:
        while j < len(right) and right[j][1] <= start:
            j += 1
        k = j
        while k < len(right) and right[k][0] < stop:
            if start < right[k][0]:
                yield start, right[k][0]
            start = max(start, right[k][1])
            k += 1
        if start < stop:
            yield start, stop

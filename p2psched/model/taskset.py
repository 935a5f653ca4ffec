"""Sets of task indices as sorted ranges.

Invariants: ranges are non-empty, sorted, disjoint and not adjacent, so equal sets are equal values
with equal bytes. All operations cost O(ranges of both), never O(tasks): the hot path moves sets.
With few ranges on one side they cost a lookup for each, and at most a copy of the other side.
Most sets are empty or one range, so these come first everywhere: that halves the cost of a command.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, starmap
from typing import Final

import msgspec

from p2psched.model.limits import TASK_INDEX_MAX

_DIGITS_MAX: Final = 20  # longer numbers are not even read; leading zeros are fine up to here
_USUAL: Final = 16  # ranges of both together: nothing beats walking them
# With so many times fewer ranges than the other each is looked up there. Results come a few at a
# time, and there are very many ranges where tasks end by turns in two ways.
_FEW: Final = 4
_FIRST: Final = ((0, 1),)  # the only task of most jobs
Range = tuple[int, int]  # start (included), stop (excluded)
Ranges = Sequence[Range]


class TaskSet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An immutable set of task indices, 0..TASK_INDEX_MAX."""

    ranges: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        ranges = self.ranges
        if len(ranges) == 1 and 0 <= ranges[0][0] < ranges[0][1] <= TASK_INDEX_MAX + 1:
            return
        last = -1
        for start, stop in ranges:
            if not last < start < stop <= TASK_INDEX_MAX + 1:
                raise ValueError(f"not a task set: range {start} to {stop} after {last}")
            last = stop

    @staticmethod
    def of(start: int, stop: int) -> TaskSet:
        """The indices `start` to `stop - 1`; empty if there are none."""
        if stop == 1 and start == 0:
            return FIRST
        return TaskSet(((start, stop),)) if start < stop else EMPTY

    @staticmethod
    def from_indices(indices: Iterable[int]) -> TaskSet:
        """Any order, duplicates allowed."""
        return TaskSet(tuple(_merge(sorted((index, index + 1) for index in indices))))

    @staticmethod
    def union(sets: Iterable[TaskSet]) -> TaskSet:
        """Of any number of sets, at the cost of one."""
        parts = [tasks for tasks in sets if tasks.ranges]
        if len(parts) < 2:
            return parts[0] if parts else EMPTY
        ranges = sorted([held for tasks in parts for held in tasks.ranges])
        return _trusted(tuple(_merge(ranges)))

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
        ranges = self.ranges
        if len(ranges) == 1:
            return ranges[0][1] - ranges[0][0]
        return sum([stop - start for start, stop in ranges])

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(starmap(range, self.ranges))

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and bool(_common(self.ranges, ((index, index + 1),)))

    def __str__(self) -> str:
        return ",".join(
            str(start) if stop == start + 1 else f"{start}-{stop - 1}"
            for start, stop in self.ranges
        )

    def __or__(self, other: TaskSet) -> TaskSet:
        left, right = self.ranges, other.ranges
        if not right:
            return self
        if not left or left == right:
            return other
        mine, theirs = len(left), len(right)
        if mine == theirs == 1:
            (start, stop), (low, high) = left[0], right[0]
            if low <= stop and start <= high:
                return TaskSet(((min(start, low), max(stop, high)),))
        if mine + theirs <= _USUAL:
            return TaskSet(tuple(_merge(sorted(left + right))))
        if theirs * _FEW < mine:
            return _trusted(_join(left, right))
        if mine * _FEW < theirs:
            return _trusted(_join(right, left))
        return _trusted(tuple(_merge(sorted(left + right))))

    def __and__(self, other: TaskSet) -> TaskSet:
        left, right = self.ranges, other.ranges
        if not left or not right:
            return EMPTY
        if left == right:
            return self
        mine, theirs = len(left), len(right)
        if mine == theirs == 1:
            (start, stop), (low, high) = left[0], right[0]
            if low <= start and stop <= high:
                return self
            if start <= low and high <= stop:
                return other
            return TaskSet.of(max(start, low), min(stop, high))
        if mine + theirs <= _USUAL:
            return _checked(_intersect(left, right))
        if theirs * _FEW < mine:
            return _trusted(tuple(_common(left, right)))
        if mine * _FEW < theirs:
            return _trusted(tuple(_common(right, left)))
        return _trusted(tuple(_intersect(left, right)))

    def __sub__(self, other: TaskSet) -> TaskSet:
        left, right = self.ranges, other.ranges
        if not left or not right:
            return self
        if left == right:
            return EMPTY
        mine, theirs = len(left), len(right)
        if mine == theirs == 1:
            (start, stop), (low, high) = left[0], right[0]
            if high <= start or stop <= low:
                return self
            if low <= start:
                return TaskSet.of(high, stop)
            if stop <= high:
                return TaskSet.of(start, low)
        if mine + theirs <= _USUAL:
            return _checked(_subtract(left, right))
        if theirs * _FEW < mine:
            return _trusted(_cut(left, right))
        if mine * _FEW < theirs:
            right = tuple(_common(right, left))
        return _trusted(tuple(_subtract(left, right)))

    @property
    def first(self) -> int:
        """The lowest index. The set must not be empty."""
        return self.ranges[0][0]

    def take(self, count: int) -> TaskSet:
        """The lowest `count` indices, or all if there are fewer."""
        if len(self.ranges) == 1 and count > 0:
            start, stop = self.ranges[0]
            return self if stop - start <= count else TaskSet.of(start, start + count)
        taken = []
        for start, stop in self.ranges:
            if count <= 0:
                break
            stop = min(stop, start + count)
            taken.append((start, stop))
            count -= stop - start
        return _trusted(tuple(taken))


EMPTY: Final = TaskSet()
FIRST: Final = TaskSet(_FIRST)


def _checked(ranges: Iterable[Range]) -> TaskSet:
    made = tuple(ranges)
    return TaskSet(made) if made else EMPTY


def _trusted(ranges: tuple[Range, ...]) -> TaskSet:
    """What our own arithmetic made needs no look at each range."""
    if not ranges:
        return EMPTY
    made: TaskSet = EMPTY.__copy__()  # type: ignore[attr-defined]  # of every struct
    msgspec.structs.force_setattr(made, "ranges", ranges)
    return made


def _first_ending_after(ranges: Ranges, index: int) -> int:
    """Place of the first range that does not end before `index`."""
    place = bisect_left(ranges, (index,))
    return place - 1 if place and ranges[place - 1][1] >= index else place


def _join(many: tuple[Range, ...], few: tuple[Range, ...]) -> tuple[Range, ...]:
    """Union; a lookup and a copy for each of the few."""
    ranges = list(many)
    for start, stop in few:
        low = _first_ending_after(ranges, start)
        high = bisect_left(ranges, (stop + 1,))  # those before it begin within us, or touch us
        if low < high:
            start, stop = min(start, ranges[low][0]), max(stop, ranges[high - 1][1])
        ranges[low:high] = [(start, stop)]
    return tuple(ranges)


def _cut(many: tuple[Range, ...], few: tuple[Range, ...]) -> tuple[Range, ...]:
    """`many` without the few; a lookup and a copy for each of these."""
    ranges = list(many)
    for start, stop in few:
        low = _first_ending_after(ranges, start)
        high = bisect_left(ranges, (stop,))
        if low < high:
            ends = ((ranges[low][0], start), (stop, ranges[high - 1][1]))
            ranges[low:high] = [(begin, end) for begin, end in ends if begin < end]
    return tuple(ranges)


def _common(many: tuple[Range, ...], few: tuple[Range, ...]) -> list[Range]:
    """Intersection; a lookup for each of the few, and what is found."""
    found = []
    for start, stop in few:
        for place in range(_first_ending_after(many, start), len(many)):
            begin, end = many[place]
            if begin >= stop:
                break
            if end > start:
                found.append((max(start, begin), min(stop, end)))
    return found


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

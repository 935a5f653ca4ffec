"""Counts per task, kept as sets: cheap when almost all tasks have the same small count."""

from __future__ import annotations

from p2psched.model.taskset import EMPTY, TaskSet


class RangeCounter:
    """task -> how often it was counted; unary: level k holds the tasks counted more than k times.

    Cost O(levels x ranges) each call; levels are bounded by the retry limits of those who count.
    """

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: tuple[TaskSet, ...] = ()  # there are very many counters that counted nothing

    def increment(self, tasks: TaskSet) -> None:
        carry = tasks
        levels = []
        for held in self._levels:
            levels.append(held | carry)
            carry = held & carry
        if carry:
            levels.append(carry)
        self._levels = tuple(levels)

    def clear(self, tasks: TaskSet) -> None:
        """Count these from 0 again."""
        self._levels = tuple(left for held in self._levels if (left := held - tasks))

    def at_least(self, count: int) -> TaskSet:
        """Tasks counted `count` times or more; `count` is 1 or more."""
        assert count >= 1
        return self._levels[count - 1] if count <= len(self._levels) else EMPTY

    def split(self, tasks: TaskSet) -> list[tuple[int, TaskSet]]:
        """`tasks` by their count, ascending; empty parts are left out."""
        parts = []
        rest = tasks
        for count, held in enumerate(self._levels):
            part = rest - held
            if part:
                parts.append((count, part))
            rest = rest & held
        if rest:
            parts.append((len(self._levels), rest))
        return parts

    def dump(self) -> list[TaskSet]:
        return list(self._levels)

"""Counts per task, kept as sets: cheap when almost all tasks have the same small count."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.taskset import EMPTY, TaskSet


class RangeCounter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """task -> how often it was counted; unary: level k holds the tasks counted more than k times.

    A value: there are very many counters that counted nothing, and they are all `NOTHING`. Cost
    O(levels x ranges) each call; levels are bounded by the retry limits of those who count.
    """

    levels: tuple[TaskSet, ...] = ()

    def plus(self, tasks: TaskSet) -> RangeCounter:
        """These are counted once more."""
        carry = tasks
        levels = []
        for held in self.levels:
            levels.append(held | carry)
            carry = held & carry
        if carry:
            levels.append(carry)
        return RangeCounter(tuple(levels))

    def without(self, tasks: TaskSet) -> RangeCounter:
        """Count these from 0 again."""
        levels = tuple(left for held in self.levels if (left := held - tasks))
        return RangeCounter(levels) if levels else NOTHING

    def at_least(self, count: int) -> TaskSet:
        """Tasks counted `count` times or more; `count` is 1 or more."""
        assert count >= 1
        return self.levels[count - 1] if count <= len(self.levels) else EMPTY

    def split(self, tasks: TaskSet) -> list[tuple[int, TaskSet]]:
        """`tasks` by their count, ascending; empty parts are left out."""
        parts = []
        rest = tasks
        for count, held in enumerate(self.levels):
            part = rest - held
            if part:
                parts.append((count, part))
            rest = rest & held
        if rest:
            parts.append((len(self.levels), rest))
        return parts


NOTHING: Final = RangeCounter()

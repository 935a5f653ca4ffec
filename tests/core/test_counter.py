"""Counts per task, kept as sets."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.counter import RangeCounter
from p2psched.model.taskset import EMPTY, TaskSet

SETS = st.frozensets(st.integers(0, 30)).map(TaskSet.from_indices)


@given(st.lists(SETS, max_size=12))
def test_it_counts_as_a_dictionary_does(increments: list[TaskSet]) -> None:
    counter, plain = RangeCounter(), Counter[int]()
    for tasks in increments:
        counter.increment(tasks)
        plain.update(tasks)
    for count in range(1, len(increments) + 2):
        expected = {task for task, times in plain.items() if times >= count}
        assert set(counter.at_least(count)) == expected
    everything = TaskSet.of(0, 31)
    parts = counter.split(everything)
    assert {task: count for count, part in parts for task in part} == {
        task: plain[task] for task in everything
    }
    assert [count for count, _ in parts] == sorted({count for count, _ in parts})
    assert all(part for _, part in parts)


def test_nothing_counted_is_an_empty_dump() -> None:
    counter = RangeCounter()
    counter.increment(EMPTY)
    assert counter.dump() == []
    assert counter.split(TaskSet.of(0, 3)) == [(0, TaskSet.of(0, 3))]
    assert counter.at_least(1) == EMPTY

"""Counts per task, kept as sets."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.counter import NOTHING
from p2psched.model.taskset import EMPTY, TaskSet

SETS = st.frozensets(st.integers(0, 30)).map(TaskSet.from_indices)


@given(st.lists(SETS, max_size=12))
def test_it_counts_as_a_dictionary_does(increments: list[TaskSet]) -> None:
    counter, plain = NOTHING, Counter[int]()
    for tasks in increments:
        counter = counter.plus(tasks)
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


@given(st.lists(SETS, max_size=8), SETS)
def test_what_is_counted_anew_has_not_been_counted(
    increments: list[TaskSet], gone: TaskSet
) -> None:
    counter = NOTHING
    for tasks in increments:
        counter = counter.plus(tasks)
    expected = NOTHING
    for tasks in increments:
        expected = expected.plus(tasks - gone)
    assert counter.without(gone) == expected


def test_counting_nothing_changes_nothing() -> None:
    counter = NOTHING.plus(EMPTY)
    assert counter == NOTHING
    assert counter.levels == ()
    assert counter.split(TaskSet.of(0, 3)) == [(0, TaskSet.of(0, 3))]
    assert counter.at_least(1) == EMPTY

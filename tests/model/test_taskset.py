"""A task set is a Python set of indices that costs its ranges, and has one form only."""

from __future__ import annotations

import random
import sys
from itertools import pairwise, product

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2psched.model.limits import TASK_INDEX_MAX
from p2psched.model.taskset import EMPTY, TaskSet

# Small numbers meet often; the ends of the index space are where counting goes wrong.
INDICES = st.sets(st.integers(0, 24) | st.integers(TASK_INDEX_MAX - 8, TASK_INDEX_MAX), max_size=24)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(TaskSet)


def _is_canonical(tasks: TaskSet) -> bool:
    return all(start < stop for start, stop in tasks.ranges) and all(
        left[1] < right[0] for left, right in pairwise(tasks.ranges)
    )


@given(INDICES)
def test_a_task_set_holds_the_indices_it_was_made_of(indices: set[int]) -> None:
    tasks = TaskSet.from_indices(indices)
    assert list(tasks) == sorted(indices)
    assert len(tasks) == len(indices)
    assert bool(tasks) == bool(indices)
    assert all(index in tasks for index in indices)
    assert all((index in tasks) == (index in indices) for index in range(26))
    assert "3" not in tasks


@given(INDICES, st.randoms(use_true_random=False))
def test_order_and_doubles_of_the_indices_do_not_matter(
    indices: set[int], rng: random.Random
) -> None:
    shuffled = [*indices, *indices]
    rng.shuffle(shuffled)
    assert TaskSet.from_indices(shuffled) == TaskSet.from_indices(sorted(indices))


@given(INDICES, INDICES)
def test_operators_do_what_they_do_on_sets(left: set[int], right: set[int]) -> None:
    a, b = TaskSet.from_indices(left), TaskSet.from_indices(right)
    for result, expected in ((a | b, left | right), (a & b, left & right), (a - b, left - right)):
        assert list(result) == sorted(expected)
        assert _is_canonical(result)


@given(
    st.sets(st.integers(0, 120), min_size=40),
    st.lists(st.tuples(st.integers(0, 125), st.integers(1, 12)), max_size=5),
)
def test_operators_with_many_ranges_and_few_do_what_they_do_on_sets(
    many: set[int], pieces: list[tuple[int, int]]
) -> None:
    few = {index for start, size in pieces for index in range(start, start + size)}
    a, b = TaskSet.from_indices(many), TaskSet.from_indices(few)
    for found, wanted in (
        (a | b, many | few),
        (b | a, many | few),
        (a & b, many & few),
        (b & a, many & few),
        (a - b, many - few),
        (b - a, few - many),
    ):
        assert found == TaskSet.from_indices(wanted)
        assert found == TaskSet(found.ranges), "its ranges keep the invariants"
        assert all((index in found) == (index in wanted) for index in range(140))


def test_operators_with_a_range_each_do_what_they_do_on_sets() -> None:
    """All ways in which two ranges, or none, can lie to each other."""
    ranges = [(start, stop) for start in range(6) for stop in range(start, 7)]
    for one, other in product(ranges, ranges):
        a, b = TaskSet.of(*one), TaskSet.of(*other)
        left, right = set(range(*one)), set(range(*other))
        for result, expected in (
            (a | b, left | right),
            (a & b, left & right),
            (a - b, left - right),
            (TaskSet.union([a, b]), left | right),
        ):
            assert list(result) == sorted(expected)
            assert len(result) == len(expected)
            assert result == TaskSet(result.ranges), "its ranges keep the invariants"
            assert _ENCODER.encode(result) == _ENCODER.encode(TaskSet.from_indices(expected))


@given(st.lists(INDICES, max_size=6))
def test_a_union_of_many_is_that_of_all_their_indices(parts: list[set[int]]) -> None:
    found = TaskSet.union(map(TaskSet.from_indices, parts))
    assert found == TaskSet.from_indices(set[int]().union(*parts))


def test_one_task_more_costs_no_walk_over_all_ranges() -> None:
    """As where tasks fail by turns: counted in steps of the interpreter, which no load changes."""
    many = TaskSet(tuple((2 * n, 2 * n + 1) for n in range(20_000)))
    one = TaskSet.of(20_001, 20_002)
    steps = 0

    def count(*_: object) -> object:
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)  # type: ignore[arg-type]  # it stays on for each line
    try:
        assert len((many | one).ranges) == 19_999
        assert not many & one
        assert (many - one) == many
        assert (one - many) == one
    finally:
        sys.settrace(before)
    assert steps < 1_000


@given(INDICES, INDICES)
def test_equal_sets_have_equal_bytes_whatever_made_them(left: set[int], right: set[int]) -> None:
    a, b = TaskSet.from_indices(left), TaskSet.from_indices(right)
    made = (a - b) | (b - a) | (a & b)
    assert made == a | b
    assert hash(made) == hash(a | b)
    assert _ENCODER.encode(made) == _ENCODER.encode(a | b)


@given(INDICES)
def test_bytes_come_back_as_the_same_set(indices: set[int]) -> None:
    tasks = TaskSet.from_indices(indices)
    assert _DECODER.decode(_ENCODER.encode(tasks)) == tasks


@given(INDICES.filter(bool))
def test_what_is_printed_can_be_read(indices: set[int]) -> None:
    tasks = TaskSet.from_indices(indices)
    assert TaskSet.parse(str(tasks)) == tasks
    assert TaskSet.parse(", ".join(map(str, indices))) == tasks
    assert tasks.first == min(indices)


@given(INDICES, st.integers(-2, 30))
def test_take_gives_the_lowest_indices(indices: set[int], count: int) -> None:
    tasks = TaskSet.from_indices(indices)
    taken = tasks.take(count)
    assert list(taken) == sorted(indices)[: max(0, count)]
    assert taken | (tasks - taken) == tasks


@given(st.integers(0, 12), st.integers(0, 12))
def test_of_includes_the_start_and_not_the_stop(start: int, stop: int) -> None:
    assert list(TaskSet.of(start, stop)) == list(range(start, stop))


def test_the_largest_set_costs_one_range() -> None:
    whole = TaskSet.of(0, TASK_INDEX_MAX + 1)
    assert len(whole) == TASK_INDEX_MAX + 1
    assert (whole - TaskSet.of(5, 6)).ranges == ((0, 5), (6, TASK_INDEX_MAX + 1))


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("5,1-2", [1, 2, 5]),
        ("0-2,2-4,5", [0, 1, 2, 3, 4, 5]),
        (" 1 , 3 ", [1, 3]),
    ],
)
def test_people_may_write_ranges_in_any_order(text: str, indices: list[int]) -> None:
    assert list(TaskSet.parse(text)) == indices


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not an index"),
        ("a", "not an index.*'a'"),
        ("-1", "not an index.*'-1'"),
        ("1-", "not an index.*'1-'"),
        ("1,,2", "not an index.*''"),
        ("1-2-3", "not an index"),
        ("1.5", "not an index"),
        ("5-3", "runs backwards.*'5-3'"),
        ("0-4294967296", "at most 4294967295.*'0-4294967296'"),
        ("9" * 5_000, "at most 4294967295"),
        ("²", "not an index"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_with_its_text(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TaskSet.parse(text)


@given(st.text("0123456789-, ²٣a", max_size=16) | st.text())
@example("1-" + "9" * 5_000)
def test_reading_any_text_gives_a_set_or_a_value_error(text: str) -> None:
    try:
        tasks = TaskSet.parse(text)
    except ValueError:
        return
    assert tasks
    assert _is_canonical(tasks)


@pytest.mark.parametrize(
    "ranges",
    [
        ((3, 3),),
        ((4, 3),),
        ((-1, 2),),
        ((0, TASK_INDEX_MAX + 2),),
        ((0, 2), (2, 4)),
        ((0, 3), (2, 4)),
        ((5, 6), (0, 1)),
    ],
)
def test_a_second_form_of_a_set_cannot_exist(ranges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="not a task set"):
        TaskSet(ranges)
    with pytest.raises(msgspec.ValidationError, match="not a task set"):
        _DECODER.decode(msgspec.msgpack.encode([ranges]))


@given(st.binary(max_size=40))
def test_decoding_any_bytes_gives_a_set_or_a_decode_error(data: bytes) -> None:
    try:
        tasks = _DECODER.decode(data)
    except msgspec.DecodeError:
        return
    assert _is_canonical(tasks)


@pytest.mark.parametrize("index", [-1, TASK_INDEX_MAX + 1])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="not a task set"):
        TaskSet.from_indices([index])


def test_the_empty_set_is_false_and_has_no_tasks() -> None:
    assert not EMPTY
    assert str(EMPTY) == ""
    assert list(EMPTY | EMPTY) == list(EMPTY - TaskSet.of(0, 3)) == []

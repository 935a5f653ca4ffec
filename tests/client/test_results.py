"""Results as the caller sees them: values, exceptions with their traceback, other ends."""

from __future__ import annotations

import pickle

import pytest

from p2psched.client.results import RemoteTraceback, TaskResult, results_of
from p2psched.model import chunks, items
from p2psched.model.errors import TaskFailed
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, Segment
from p2psched.run.host.frames import OK
from p2psched.run.host.functions import call

JOB = JobId("ab" * 16)


class Odd(Exception):
    """Can't be opened: its constructor wants more than it pickles."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def test_a_segment_gives_one_result_for_each_task() -> None:
    data = chunks.pack([items.pack_value(pickle.dumps(n * n)) for n in (5, 6, 7)])
    results = list(results_of(JOB, Segment(5, 8, Cause.OK, data)))
    assert [(r.index, r.value, r.error) for r in results] == [
        (5, 25, None),
        (6, 36, None),
        (7, 49, None),
    ]


def test_value_raises_what_the_task_raised_with_the_traceback_as_its_cause() -> None:
    header: items.Header = {"type": "KeyError", "message": "'x'", "traceback": "  in user code\n"}
    item = items.pack(header, pickle.dumps(KeyError("x")))
    result = TaskResult(JOB, 0, Cause.EXCEPTION, item)
    with pytest.raises(KeyError) as caught:
        _ = result.value
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in user code" in str(caught.value.__cause__)


VALUES: list[object] = [None, True, 0, -5, 2**63, 2**70, 1.5, "text", "\ud800", b"", b"\x80\x05"]
VALUES += [[], {}, (1, 2), {1}, [1, ["a", {"b": None}]], {"a": {"b": [1.0]}}, {1: 2}, [(1,)]]
VALUES += [[2**64], "x" * 5000]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was_returned(value: object) -> None:
    cause, header, data = call(lambda: value, pickle.dumps(((), {})))
    assert (cause, header) == (OK, {})
    result = TaskResult(JOB, 0, Cause.OK, items.pack_value(data))
    assert result.value == value
    assert type(result.value) is type(value)


def test_plain_data_opens_without_running_code() -> None:
    def plain(value: object) -> bool:
        _, _, data = call(lambda: value, pickle.dumps(((), {})))
        return TaskResult(JOB, 0, Cause.OK, items.pack_value(data)).is_plain

    assert plain({"loss": 0.5, "epochs": [1, 2]})
    assert not plain((1, 2))
    assert not plain(Odd)


def test_an_exception_that_cannot_be_opened_is_told_in_words() -> None:
    header: items.Header = {"type": "Odd", "message": "1", "traceback": "line 3"}
    result = TaskResult(JOB, 4, Cause.EXCEPTION, items.pack(header, pickle.dumps(Odd(1, 2))))
    error = result.error
    assert isinstance(error, TaskFailed)
    assert str(error) == "task abababab/4 ended by exception: Odd: 1"
    assert "line 3" in str(error.__cause__)


def test_a_program_that_failed_tells_its_exit_code_and_last_words() -> None:
    item = items.pack({"exit": 3}, stderr=b"first\nno such table\n")
    error = TaskResult(JOB, 0, Cause.EXIT, item).error
    assert str(error) == "task abababab/0 ended by exit, exit code 3: no such table"


def test_a_program_that_succeeded_has_output_and_no_value() -> None:
    result = TaskResult(JOB, 0, Cause.OK, items.pack({"exit": 0}, stdout=b"42\n"))
    assert (result.value, result.stdout, result.header["exit"]) == (None, b"42\n", 0)

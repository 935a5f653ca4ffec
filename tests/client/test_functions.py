"""How calls are packed: what travels by value, what is refused, and with which words."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable

import pytest

from p2psched.client.functions import CHUNK_TASKS, function_spec, one_argument
from p2psched.model import chunks
from p2psched.model.errors import UsageError
from p2psched.model.job import FunctionWork, JobSpec


def spec_of(function: Callable[..., object] | str, items: list[object]) -> JobSpec:
    return function_spec(
        function,
        one_argument(items),
        name=None,
        retries=0,
        timeout_s=None,
        cpus=1,
        submitter="me@here",
    )


def test_every_call_is_found_in_its_chunk() -> None:
    items: list[object] = [*range(CHUNK_TASKS + 3), {"a": [1, 2]}, None]
    work = spec_of("math:sqrt", items).work
    assert isinstance(work, FunctionWork)
    packed = [item for chunk in work.chunks for item in chunks.unpack(chunk)]
    opened = [pickle.loads(call) for call in packed]  # noqa: TID251 (as a worker does)
    assert opened == [((item,), {}) for item in items]
    assert chunks.count(work.chunks[0]) == CHUNK_TASKS


def test_an_import_path_sends_no_code() -> None:
    work = spec_of("math:sqrt", [1]).work
    assert isinstance(work, FunctionWork)
    assert (work.path, work.code) == ("math:sqrt", b"")


def test_a_closure_travels_by_value() -> None:
    offset = 5

    def add(number: int) -> int:
        return number + offset

    work = spec_of(add, [1]).work
    assert isinstance(work, FunctionWork)
    assert pickle.loads(work.code)(2) == 7  # noqa: TID251 (as a worker does)


def test_a_job_is_named_after_its_function() -> None:
    assert spec_of("package.module:Class.method", [1]).name == "Class.method"
    assert spec_of(len, ["a"]).name == "len"


@pytest.mark.parametrize(
    ("function", "items", "words"),
    [
        ("math.sqrt", [1], "write it like package.module:name"),
        (len, [], "1 to 1,000,000 tasks, not 0"),
        (len, [threading.Lock()], "an argument can't be serialised"),
        (len, [b"x" * 600_000], "may take 512 KiB, these take 587 KiB"),
        (3, [1], "3 is not a function"),
    ],
)
def test_what_cannot_travel_is_refused_with_the_way_out(
    function: Callable[..., object], items: list[object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        spec_of(function, items)


def test_a_function_that_holds_a_lock_is_refused() -> None:
    lock = threading.Lock()

    def locked(_: object) -> None:
        with lock:
            pass

    with pytest.raises(UsageError, match="the function can't be serialised"):
        spec_of(locked, [1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpus": 1.5}, "cpus are 1 to 1024, not 1.5"),
        ({"cpus": 0}, "cpus are 1 to 1024, not 0"),
        ({"retries": "x"}, "retries are 0 to 100"),
        ({"timeout_s": 0}, "a timeout is more than 0"),
        ({"timeout_s": -1.0}, "a timeout is more than 0"),
        ({"timeout_s": float("nan")}, "a timeout is more than 0"),
        ({"timeout_s": 1e300}, "a timeout is more than 0 and at most"),
        ({"name": "a/b"}, "no '/'"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_sent(
    options: dict[str, object], words: str
) -> None:
    given: dict[str, object] = {"name": None, "retries": 0, "timeout_s": None, "cpus": 1}
    with pytest.raises(UsageError, match=words):
        function_spec(len, one_argument(["a"]), submitter="", **(given | options))  # type: ignore[arg-type]  # wrong on purpose

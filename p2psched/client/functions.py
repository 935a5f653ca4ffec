"""Calls as they travel: a function and the arguments of each task, packed into a spec."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import cloudpickle

from p2psched.model import chunks
from p2psched.model.errors import UsageError
from p2psched.model.job import FunctionWork, JobSpec
from p2psched.model.taskset import TaskSet

CHUNK_TASKS: Final = 512
PICKLE_PROTOCOL: Final = 5
TIMEOUT_S_MAX: Final = 10 * 365 * 86_400
_PLAIN: Final = frozenset({int, float, str, bytes, bool, type(None)})

Arguments = tuple[tuple[object, ...], Mapping[str, object]]


class PackedFunction(NamedTuple):
    """A function as it travels: by `path`, or by value in `code`."""

    path: str
    code: bytes
    name: str


def function_spec(
    function: Callable[..., object] | str | PackedFunction,
    calls: Iterable[Arguments | bytes],
    *,
    name: str | None,
    retries: int,
    timeout_s: float | None,
    cpus: int,
    submitter: str,
) -> JobSpec:
    """A job of one call of `function` for each of `calls`.

    `function` is `"module:name"`, looked up by the workers, or an object that travels by value as
    far as it must (cloudpickle: `__main__`, lambdas, closures) and by import path otherwise. What
    `pack_function` and `pack_call` made is taken as it is.
    Raises UsageError for what can't be serialised or is over a limit.
    """
    packed_function = function if isinstance(function, PackedFunction) else pack_function(function)
    packed = [call if isinstance(call, bytes) else pack_call(call) for call in calls]
    work = FunctionWork(
        path=packed_function.path,
        code=packed_function.code,
        chunks=tuple(
            chunks.pack(packed[start : start + CHUNK_TASKS])
            for start in range(0, len(packed), CHUNK_TASKS)
        ),
        chunk_tasks=CHUNK_TASKS,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
    )
    try:
        return JobSpec(
            name=name if name is not None else packed_function.name,
            tasks=TaskSet.of(0, len(packed)),
            work=work,
            retries=retries,
            timeout_ms=timeout_ms(timeout_s),
            cpus=cpus,
            submitter=submitter,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def timeout_ms(timeout_s: float | None) -> int | None:
    """Raises ValueError for what is no duration."""
    if timeout_s is None:
        return None
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise ValueError(f"a timeout is more than 0 and at most {TIMEOUT_S_MAX} s, not {timeout_s}")
    return max(1, round(timeout_s * 1000))


def pack_function(function: Callable[..., object] | str) -> PackedFunction:
    """Raises UsageError for what is no function, or can't be serialised."""
    if isinstance(function, str):
        module, colon, attribute = function.partition(":")
        if not (colon and module and attribute):
            raise UsageError(f"{function!r} is no import path: write it like package.module:name")
        return PackedFunction(function, b"", _name_of(function))
    if not callable(function):
        raise UsageError(f"{function!r} is not a function")
    return PackedFunction("", _pickle(function, "the function"), _name_of(function))


def pack_call(call: Arguments) -> bytes:
    """Raises UsageError for what can't be serialised."""
    args, kwargs = call
    if not kwargs and all(type(arg) in _PLAIN for arg in args):
        return pickle.dumps(call, PICKLE_PROTOCOL)  # the same bytes, ten times as quick
    return _pickle(call, "an argument")


def _pickle(value: object, what: str) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(value, protocol=PICKLE_PROTOCOL)
    except Exception as error:
        raise UsageError(
            f"{what} can't be serialised ({type(error).__name__}: {error}): pass plain data, and "
            "open files, sockets or locks inside the function"
        ) from error
    return data


def _name_of(function: Callable[..., object] | str) -> str:
    if isinstance(function, str):
        return function.rpartition(":")[2][:128]
    return str(getattr(function, "__name__", type(function).__name__))[:128]


def one_argument(items: Iterable[object]) -> Sequence[Arguments]:
    """The calls of `map`: one positional argument each."""
    return [((item,), {}) for item in items]

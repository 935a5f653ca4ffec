"""`@task`: a function together with the options that it is run with.

Standard library only and loaded on both sides, like `files`: a module of the user that is sent to
a worker has the decorator in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, ParamSpec, TypedDict, TypeVar, Unpack, overload

HOME: Final = "p2psched.run.host.tasks"

P = ParamSpec("P")
R = TypeVar("R")


class TaskOptions(NamedTuple):
    """What `Client.map` and the others use where they are told nothing else."""

    retries: int = 0
    timeout_s: float | None = None  # of one attempt
    cpus: int = 1
    name: str | None = None  # of the job; None: the function's
    policy: str = ""  # who says where tasks go
    needs: object = None  # a `p2psched.Needs`, of the peers; for callers only
    checkpoint: bool = False  # it may use `p2psched.checkpoint`


class Changes(TypedDict, total=False):
    """The fields of `TaskOptions`."""

    retries: int
    timeout_s: float | None
    cpus: int
    name: str | None
    policy: str
    needs: object
    checkpoint: bool


class TaskFunction(Generic[P, R]):
    """Called, it is its function, here and now. Handed to a client, it brings its options."""

    def __init__(self, function: Callable[P, R], settings: TaskOptions) -> None:
        if not callable(function):
            raise TypeError(f"a task is made of a function, not of {function!r}")
        functools.update_wrapper(self, function)
        self.function = function
        self.settings = settings

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {getattr(self.function, '__qualname__', self.function)}>"

    def __reduce__(self) -> tuple[object, ...]:
        # What it needs of peers is no business of a worker, which may not have its class.
        return TaskFunction, (self.function, self.settings._replace(needs=None))

    def options(self, **changes: Unpack[Changes]) -> TaskFunction[P, R]:
        """The same task with other options; this one stays as it is."""
        return TaskFunction(self.function, TaskOptions(**{**self.settings._asdict(), **changes}))


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(**options: Unpack[Changes]) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def task(
    function: Callable[P, R] | None = None, /, **options: Unpack[Changes]
) -> TaskFunction[P, R] | Callable[[Callable[P, R]], TaskFunction[P, R]]:
    """`@task` or `@task(retries=3, timeout_s=60, cpus=2, name="training")`."""
    settings = TaskOptions(**options)
    if function is not None:
        return TaskFunction(function, settings)
    return lambda decorated: TaskFunction(decorated, settings)


for _named in (TaskFunction, TaskOptions, task):
    _named.__module__ = HOME

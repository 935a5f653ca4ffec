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
    """What `Client.map` and the others use where they are told nothing else.

    Those that are objects are as `Client.map` takes them; a worker does not get them.
    """

    retries: int = 0
    timeout_s: float | None = None  # of one attempt
    cpus: int = 1
    name: str | None = None  # of the job; None: the function's
    policy: str = ""  # who says where tasks go
    needs: object = None  # of the peers
    checkpoint: bool = False  # it may use `p2psched.checkpoint`
    retry: object = None  # rules by cause
    times: object = None  # limits of the whole job
    limits: object = None  # of what one task uses
    pace: object = None
    start: object = None  # "once", for what must not start twice
    max_disconnect_ms: int | None = None
    hold: object = None  # of a lock
    copies: int = 2  # of large results
    lease: float | str | None = None  # of exclusive tasks
    replicas: int = 1
    speculate: bool = False
    priority: int = 0  # higher ones first
    preemptible: bool | float | str = False  # it may end at a checkpoint for a higher one
    after: object = None  # jobs and tasks that it comes after
    on_parent_fail: str = "abort"  # or "continue": begin however they end


class Changes(TypedDict, total=False):
    """The fields of `TaskOptions`."""

    retries: int
    timeout_s: float | None
    cpus: int
    name: str | None
    policy: str
    needs: object
    checkpoint: bool
    retry: object
    times: object
    limits: object
    pace: object
    start: object
    max_disconnect_ms: int | None
    hold: object
    copies: int
    lease: float | str | None
    replicas: int
    speculate: bool
    priority: int
    preemptible: bool | float | str
    after: object
    on_parent_fail: str


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
        # A worker may not have their classes.
        kept = self.settings._replace(
            needs=None,
            retry=None,
            times=None,
            limits=None,
            pace=None,
            start=None,
            hold=None,
            after=None,
        )
        return TaskFunction, (self.function, kept)

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

"""Tasks as values that are not there yet, and ways to wait for many of them.

A Task belongs to the event loop of its client. Waiting for it never cancels it: a deadline around
`await task` ends the wait, and the work goes on. Its value is opened when somebody first looks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from typing import Final, Generic, Literal, TypeVar, cast

from p2psched.client.batching import Batch, Stage
from p2psched.client.functions import Arguments, pack_call
from p2psched.client.job import Job
from p2psched.client.logs import Log
from p2psched.client.options import Function, HasOptions, Options, unwrap
from p2psched.client.pipeline import Pipeline
from p2psched.client.results import TaskResult
from p2psched.model.errors import UsageError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ReturnWhen = Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]
FIRST_COMPLETED: Final = "FIRST_COMPLETED"
FIRST_EXCEPTION: Final = "FIRST_EXCEPTION"
ALL_COMPLETED: Final = "ALL_COMPLETED"


class Task(Generic[T_co]):
    """One call that runs somewhere in the cluster. Made by `Client.submit`.

    `await task` is its value, or raises what it raised with the traceback from there as its cause;
    TaskFailed if it ended otherwise; CancelledError if it was cancelled here; Unavailable if the
    cluster was out of reach for longer than the client's patience, or the client was closed.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_callbacks",
        "_error",
        "_index",
        "_is_cancelled",
        "_is_done",
        "_outcome",
        "_pipeline",
        "_value",
        "_waiting",
    )

    def __init__(
        self, pipeline: Pipeline, function: Function, options: Options, arguments: Arguments
    ) -> None:
        self._pipeline = pipeline
        self._index: int | None = None
        self._is_done = False
        self._is_cancelled = False
        self._outcome: TaskResult | None = None  # until its value is opened
        self._value: object = None
        self._error: Exception | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[Task[T_co]], object]] = []
        self._batch: Batch = pipeline.add(function, options, pack_call(arguments), self)

    def __repr__(self) -> str:
        place = "?" if self._index is None else str(self._index)
        return f"<Task {self._batch.job}/{place} {self._state()}>"

    def _state(self) -> str:
        if not self._is_done:
            return self._batch.stage.name.lower()
        if self._is_cancelled:
            return "cancelled"
        return "done" if self._error is None else f"failed: {type(self._error).__name__}"

    @property
    def job(self) -> Job:
        """The job with which it travels, often along with others."""
        return Job(self._pipeline.session, self._batch.job)

    @property
    def index(self) -> int | None:
        """Its place in the job; None until it has left."""
        return self._index

    async def logs(self, *, attempt: int | None = None) -> Log:
        """What an attempt of it has printed, as `job.task(index).logs` tells."""
        if self._index is None:
            raise UsageError("the task has not left for the cluster yet: it has no attempts")
        return await self.job.task(self._index).logs(attempt=attempt)

    # --- as in concurrent.futures and asyncio -----------------------------------------------------

    def __await__(self) -> Generator[object, None, T_co]:
        if not self._is_done:
            yield from self._wait().__await__()
        return self.result()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._pipeline.loop:
            raise UsageError("a task is awaited in the event loop in which it was submitted")
        waiting: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            if not self._is_done:
                self._waiting.remove(waiting)

    def done(self) -> bool:
        """True once it has ended, in whichever way."""
        return self._is_done

    def cancelled(self) -> bool:
        return self._is_cancelled

    def result(self) -> T_co:
        """What `await` gives. Raises asyncio.InvalidStateError while the task goes on."""
        self._open()
        if self._error is not None:
            # Anew: one error may be that of many tasks, and be raised many times.
            raise self._error.with_traceback(None)
        return cast("T_co", self._value)

    def exception(self) -> Exception | None:
        """What `await` would raise, None for a value; raises as `result` does if there is neither.
        A value that can't be opened here is no exception of the task: looking at it raises."""
        if self._outcome is None or not self._outcome.ok:
            self._open()
        return self._error

    def _open(self) -> None:
        if not self._is_done:
            raise asyncio.InvalidStateError("the task has not ended: await it")
        if self._is_cancelled:
            raise asyncio.CancelledError
        outcome = self._outcome
        if outcome is not None:
            self._error = outcome.error
            if self._error is None:
                self._value = outcome.value
            self._outcome = None

    def cancel(self) -> bool:
        """Nobody waits for it any more: True unless it has ended. A task that has not left is never
        run. One that has may still run and be recorded, unless all unfinished tasks of its job are
        cancelled: only then the ledger cancels the job (see `Client.cancel` to wait for that)."""
        if self._is_done:
            return False
        self._is_cancelled = True
        self._end()
        if self._batch.stage is not Stage.WAITING and self._index is not None:
            self._batch.give_up(self._index)
        return True

    async def wait_cancelled(self) -> None:
        """After `cancel`: until the ledger has cancelled the job, if all its unfinished tasks were
        cancelled. Raises Unavailable if nobody could be told."""
        await self._pipeline.cancel(self._batch)

    async def accepted(self) -> None:
        """Until the cluster has it: from then on it can't be lost, whoever dies. Raises what kept
        it from being accepted."""
        await self._pipeline.wait_accepted(self._batch)
        if self._index is None or not self._batch.was_accepted:
            self.result()  # raises: it was cancelled before it left, or refused

    def add_done_callback(self, callback: Callable[[Task[T_co]], object]) -> None:
        """Call it with the task, from the event loop, once the task has ended."""
        if self._is_done:
            self._pipeline.loop.call_soon(callback, self)
        else:
            self._callbacks.append(callback)

    def remove_done_callback(self, callback: Callable[[Task[T_co]], object]) -> int:
        """How often it was there."""
        kept = [other for other in self._callbacks if other != callback]
        removed = len(self._callbacks) - len(kept)
        self._callbacks = kept
        return removed

    # --- the waiter of its batch ------------------------------------------------------------------

    def on_leaving(self, batch: Batch, index: int) -> bool:
        self._batch, self._index = batch, None if self._is_done else index
        return not self._is_done

    def on_result(self, result: TaskResult) -> None:
        assert not self._is_done
        self._outcome = result
        self._end()

    def on_failed(self, error: Exception) -> None:
        if not self._is_done:  # cancelled before it left
            self._error = error
            self._end()

    def _end(self) -> None:
        self._is_done = True
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._pipeline.loop.call_soon(callback, self)


def submit(
    pipeline: Pipeline, function: Callable[..., T] | str | HasOptions, arguments: Arguments
) -> Task[T]:
    """See `Client.submit`."""
    called, options = unwrap(function)
    return Task(pipeline, called, options, arguments)


async def gather(tasks: Iterable[Task[T]], *, return_exceptions: bool) -> list[T]:
    """The values in the order of the tasks; see `Client.gather`."""
    wanted = list(tasks)
    if not return_exceptions:
        async with contextlib.aclosing(as_completed(wanted)) as ended:
            async for task in ended:
                task.result()  # raises as soon as one has failed
        return [task.result() for task in wanted]
    await wait(wanted, timeout_s=None, return_when=ALL_COMPLETED)
    return [cast("T", _value_or_error(task)) for task in wanted]


def _value_or_error(task: Task[T]) -> object:
    try:
        return task.result()
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the caller asked for it)
        return error


class _Arrivals(Generic[T]):
    """Tasks of a set as they end, each once."""

    def __init__(self, tasks: Iterable[Task[T]]) -> None:
        self._ended: deque[Task[T]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._left = dict.fromkeys(tasks)  # each once, in order
        for task in list(self._left):
            if task.done():
                self._on_done(task)
            else:
                task.add_done_callback(self._on_done)

    def __len__(self) -> int:
        return len(self._left) + len(self._ended)

    def _on_done(self, task: Task[T]) -> None:
        del self._left[task]
        self._ended.append(task)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def next(self) -> Task[T]:
        while not self._ended:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._ended.popleft()

    def forget(self) -> None:
        for task in self._left:
            task.remove_done_callback(self._on_done)


async def as_completed(tasks: Iterable[Task[T]]) -> AsyncGenerator[Task[T], None]:
    """Each task once, as soon as it has ended; see `Client.as_completed`."""
    arrivals = _Arrivals(tasks)
    del tasks
    try:
        while len(arrivals):
            yield await arrivals.next()
    finally:
        arrivals.forget()


async def wait(
    tasks: Iterable[Task[T]], *, timeout_s: float | None, return_when: ReturnWhen
) -> tuple[set[Task[T]], set[Task[T]]]:
    """Those that have ended and those that have not; see `Client.wait`."""
    if return_when not in {FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED}:
        raise UsageError(
            f"return_when is {FIRST_COMPLETED}, {FIRST_EXCEPTION} or {ALL_COMPLETED}, "
            f"not {return_when!r}"
        )
    wanted: Sequence[Task[T]] = list(tasks)
    arrivals = _Arrivals(wanted)
    try:
        async with asyncio.timeout(timeout_s) as limit:
            while len(arrivals):
                task = await arrivals.next()
                if return_when == FIRST_COMPLETED or (
                    return_when == FIRST_EXCEPTION and _has_failed(task)
                ):
                    break
    except TimeoutError:
        if not limit.expired():
            raise
    finally:
        arrivals.forget()
    done = {task for task in wanted if task.done()}
    return done, set(wanted) - done


def _has_failed(task: Task[T]) -> bool:
    return not task.cancelled() and task.exception() is not None

"""One run for all who want the same thing at the same time.

It ends with its last waiter: what nobody waits for any more is cancelled. A run that fails fails
for all who wait, and the next one starts afresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True)
class _Run(Generic[T]):
    outcome: asyncio.Future[T]
    task: asyncio.Task[None] | None = None
    waiting: int = 0


class SharedRuns(Generic[K, T]):
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._runs: dict[K, _Run[T]] = {}

    async def join(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns or raises, of the run that is under way or of a new one."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(asyncio.get_running_loop().create_future())
            run.task = self._group.create_task(self._work(key, run, work))
        run.waiting += 1
        try:
            return await asyncio.shield(run.outcome)
        finally:
            run.waiting -= 1
            if not run.waiting and not run.outcome.done() and run.task is not None:
                self._end(key, run)
                run.task.cancel()

    async def _work(self, key: K, run: _Run[T], work: Callable[[], Awaitable[T]]) -> None:
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001 (whoever waits hears it, whatever it is)
            self._end(key, run)
            if not run.outcome.done():
                run.outcome.set_exception(error)
                run.outcome.exception()  # seen, should everybody have gone meanwhile
        else:
            self._end(key, run)
            if not run.outcome.done():
                run.outcome.set_result(result)
        finally:
            self._end(key, run)
            run.outcome.cancel()

    def _end(self, key: K, run: _Run[T]) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

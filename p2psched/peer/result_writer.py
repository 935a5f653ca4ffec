"""The peer's result store behind one thread: writes in order, reads that see every write before.

Writes are grouped: what piled up while one transaction ran is the next. What waits is what the
ledger committed since, which its own rounds keep small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from p2psched.model.commands import Stamped
from p2psched.ports.results import Results

T = TypeVar("T")


class ResultWriter:
    def __init__(self, results: Results, *, on_failed: Callable[[BaseException], None]) -> None:
        self._results = results
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="results")
        self._stored_index = results.applied_index
        self._events: list[Stamped] = []
        self._index = results.applied_index
        self._busy = False  # a write is under way or scheduled
        self._flying = 0
        self._closed = False

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        """Queue the events of one entry; what the store has from an earlier run is passed over."""
        if applied_index <= self._stored_index:
            return
        self._index = applied_index
        self._events += events
        # An entry without events is noted along with the next one that has some.
        if self._events and not self._busy:
            self._busy = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if not self._events:  # a read was quicker
            self._busy = self._flying > 0
        elif not self._closed:
            self._flying += 1
            self._hand_over().add_done_callback(self._on_done)

    def _hand_over(self) -> asyncio.Future[None]:
        events, self._events = self._events, []
        return self._loop.run_in_executor(self._thread, self._results.store, events, self._index)

    def _on_done(self, done: asyncio.Future[None]) -> None:
        self._flying -= 1
        self._busy = self._flying > 0
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._on_failed(error)
        elif self._events:
            self._busy = True
            self._flush()

    async def read(self, query: Callable[[Results], T]) -> T:
        """Run a query after everything that was handed to `store` before."""
        if self._events:
            self._busy = True
            self._flush()
        return await self._loop.run_in_executor(self._thread, query, self._results)

    def close(self) -> None:
        """Finish what is under way; the rest is rebuilt from the ledger at the next start."""
        self._closed = True
        self._thread.shutdown(wait=True)
        self._results.close()

"""Group commit: what piled up while one sync ran is written and synced as the next group.

A sync that is quick is done inline (a hand-over to a thread costs more than it); one that is slow
goes to a thread, so that the loop stays free. Sends of the same turn leave before an inline sync.
After an error nothing is written any more: the peer must stop (fsync is never tried again).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from p2psched.core.raft.effects import Persist
from p2psched.store.log import LogStore
from p2psched.store.persist import perform

INLINE_SYNC_MS_MAX: Final = 0.4  # slower syncs go to the thread
THREAD_GROUPS_MIN: Final = 256  # after a slow inline sync, this many go to the thread
_WEIGHT: Final = 0.1


class LogWriter:
    """`on_synced(token, took_ms)` is called from the loop once all up to `token` is on disk."""

    def __init__(
        self,
        store: LogStore,
        *,
        on_synced: Callable[[int, float], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")
        self._queue: list[Persist] = []
        self._compacts = False  # after the next group
        self._scheduled = False  # a flush is on its way, in the loop or in the thread
        self._failed = False  # or closed
        self.sync_ms = 0.0  # moving average, for people
        # What the thread measures holds its waits for the interpreter too; the least of some is
        # the disk's own time.
        self._thread_ms: deque[float] = deque(maxlen=16)
        self._thread_groups = self._thread_ms.maxlen or 0  # left before inline is thought of

    def write(self, persist: Persist) -> None:
        self._queue.append(persist)
        self._schedule()

    def compact(self) -> None:
        """Remove what a durable snapshot stands for, in the thread, after what was written."""
        self._compacts = True
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._failed:
            self._scheduled = True
            # Two turns later: first what was sent in this turn is written to its sockets.
            self._loop.call_soon(self._loop.call_soon, self._flush)

    def _flush(self) -> None:
        if self._failed:
            return
        group, self._queue = self._queue, []
        compacts, self._compacts = self._compacts, False
        is_quick = self._thread_groups <= 0 and min(self._thread_ms) <= INLINE_SYNC_MS_MAX
        if is_quick and not compacts and not any(persist.install for persist in group):
            try:
                took_ms = self._write_and_sync(group)
            except Exception as error:  # noqa: BLE001 (whatever it is, nothing is durable any more)
                self._fail(error)
                return
            if took_ms > 4 * INLINE_SYNC_MS_MAX:
                self._thread_groups = THREAD_GROUPS_MIN
            self._done(group, took_ms)
        else:
            future = self._loop.run_in_executor(self._thread, self._write_and_sync, group, compacts)
            future.add_done_callback(lambda done: self._on_thread_done(group, done))

    def _on_thread_done(self, group: list[Persist], done: asyncio.Future[float]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, Exception):
            self._fail(error)
        elif error is None:
            self._thread_groups -= 1
            self._thread_ms.append(done.result())
            self._done(group, done.result())

    def _write_and_sync(self, group: list[Persist], compacts: bool = False) -> float:
        started = time.perf_counter()
        for persist in group:
            perform(self._store, persist)
        self._store.sync()
        took_ms = (time.perf_counter() - started) * 1000
        if compacts:
            self._store.compact()
        return took_ms

    def _done(self, group: list[Persist], took_ms: float) -> None:
        self.sync_ms += _WEIGHT * (took_ms - self.sync_ms)
        self._scheduled = False
        if self._queue or self._compacts:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        if group:
            self._on_synced(group[-1].token, took_ms)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._on_failed(error)

    def close(self) -> None:
        """Wait for the write under way; what is queued is dropped, for nobody was told of it."""
        self._failed = True
        self._thread.shutdown(wait=True)
        self._store.close()

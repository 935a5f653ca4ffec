"""Keeps the file that tells the synced end of the log (`store.marker`) close behind it.

For: the log writer, which says when a sync moved the end. The marker follows `MARK_AFTER_S` later,
in a thread of its own: no acknowledgement waits for it, and an idle log costs nothing. One write
is under way at a time, so a disk that takes long has a marker that lags by so much more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from p2psched.store.log import LogStore
from p2psched.store.space import is_no_space

MARK_AFTER_S: Final = 0.09  # with the write itself: 0.1 s on a disk in order
FULL_RETRY_S: Final = 1.0  # the mark before stands meanwhile


class LogMarker:
    """`on_failed` is called from the loop, once: a marker that can't be synced is a failed disk."""

    def __init__(self, store: LogStore, *, on_failed: Callable[[Exception], None]) -> None:
        self._store = store
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-marker")
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._closed = False

    def on_synced(self) -> None:
        """The synced end has moved."""
        if self._timer is None and not self._writing and not self._closed:
            self._timer = self._loop.call_later(MARK_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = True
        future = self._loop.run_in_executor(self._thread, self._store.mark_end)
        future.add_done_callback(self._end)

    def _end(self, done: asyncio.Future[None]) -> None:
        self._writing = False
        if done.cancelled() or self._closed:
            return
        error = done.exception()
        if is_no_space(error):
            self._timer = self._loop.call_later(FULL_RETRY_S, self._begin)
        elif isinstance(error, Exception):
            self.close()
            self._on_failed(error)
        elif not self._store.is_marked:
            self.on_synced()

    def close(self) -> None:
        """Wait for the write under way. May be called again."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown(wait=True)

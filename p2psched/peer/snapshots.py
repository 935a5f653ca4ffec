"""Makes snapshots of what this peer has applied, when its log has grown enough since the last one,
or has grown a little and the last one is old.

The state is taken as of one entry, a piece a turn of the loop (`core.capture`); then the result
store is made durable up to it (what leaves the log can't be applied again), then the snapshot is
written, both in other threads. Only then the log hears of it. One at a time; a failure ends the
peer, as that of any other write. One that finds no space is given up, and another is made later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from p2psched.core.raft.engine import RaftEngine
from p2psched.model.raft import Snapshot
from p2psched.store.snapshots import SnapshotFiles, described
from p2psched.store.space import is_no_space

log = logging.getLogger(__name__)

# While a follower takes the last one a new one would make it begin anew: it may be late by this.
PATIENCE: Final = 4
SPACE_RETRY_S: Final = 10.0

# A quiet cluster makes one an hour, if it is worth it: less of the log to read at the next start.
OLD_S: Final = 3_600
OLD_SHARE: Final = 16  # of what is usually due

MakeDurable = Callable[[Callable[[], None]], None]  # calls back, once


class SnapshotMaker:
    """`look` after each delivery. `on_saved` is called from the loop."""

    def __init__(
        self,
        engine: RaftEngine,
        files: SnapshotFiles,
        *,
        log_bytes: int,
        capture_state: Callable[[int], Iterator[bytes] | None],
        make_durable: MakeDurable,
        on_saved: Callable[[Snapshot], None],
        on_failed: Callable[[Exception], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._files = files
        self._log_bytes = log_bytes
        self._capture_state = capture_state
        self._make_durable = make_durable
        self._on_saved = on_saved
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._now_s = now_s
        self._made_s = now_s()  # the newest of this process, or its start
        self._under_way = False
        self._not_before_s = 0.0
        self._closed = False

    def look(self) -> None:
        """Begin a snapshot if one is due."""
        engine, newest = self._engine, self._engine.raft.snapshot
        # A large state is not written more often than as much of the log.
        due_bytes = max(self._log_bytes, newest.size if newest is not None else 0)
        if engine.raft.sends_snapshot:
            due_bytes *= PATIENCE
        if self._now_s() - self._made_s >= OLD_S:
            due_bytes //= OLD_SHARE
        if self._under_way or self._loop.time() < self._not_before_s:
            return
        if engine.bytes_since_snapshot < due_bytes:
            return
        head = engine.describe()
        if head is None or self._closed:
            return
        pieces = self._capture_state(head.index)
        if pieces is not None:
            self._under_way = True
            self._take(head, pieces, [])

    def _take(self, head: Snapshot, pieces: Iterator[bytes], taken: list[bytes]) -> None:
        """One piece a turn, and the loop sees to others first."""
        piece = next(pieces, None)
        if self._closed:
            return
        if piece is not None:
            taken.append(piece)
            self._loop.call_soon(self._take, head, pieces, taken)
        else:
            self._make_durable(lambda: self._write(head, taken))

    def _write(self, head: Snapshot, taken: list[bytes]) -> None:
        if not self._closed:
            writing = self._loop.run_in_executor(self._thread, self._save, head, taken)
            writing.add_done_callback(self._on_written)

    def _save(self, head: Snapshot, taken: list[bytes]) -> Snapshot:
        state = b"".join(taken)
        taken.clear()
        snapshot = described(head, state)
        self._files.save(snapshot, state)
        return snapshot

    def _on_written(self, done: asyncio.Future[Snapshot]) -> None:
        self._under_way = False
        if done.cancelled() or self._closed:
            return
        self._made_s = self._now_s()
        error = done.exception()
        if is_no_space(error):  # what was half written is gone again
            log.warning("snapshot-put-off", extra={"reason": str(error)})
            self._not_before_s = self._loop.time() + SPACE_RETRY_S
        elif isinstance(error, Exception):
            self._on_failed(error)
        elif error is None:
            self._on_saved(done.result())

    def close(self) -> None:
        """Wait for what is being written."""
        self._closed = True
        self._thread.shutdown(wait=True)

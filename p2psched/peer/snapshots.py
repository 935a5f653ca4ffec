"""Makes snapshots of what this peer has applied, when its log has grown enough since the last one,
or has grown a little and the last one is old.

The state is taken as of one entry, a piece a turn of the loop (`core.capture`), and each piece is
written in another thread before the next one is taken, so that few are ever in memory. Then the
result store is made durable up to the entry (what leaves the log can't be applied again), and
then the file gets its name. Only then the log hears of it. One at a time; a failure ends the peer,
as that of any other write. One that finds no space is given up, and another is made later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from p2psched.core.raft.engine import RaftEngine
from p2psched.model.errors import NoSpace, Unavailable
from p2psched.model.raft import Room, Snapshot
from p2psched.store.snapshots import NewSnapshot, SnapshotFiles
from p2psched.store.space import is_no_space

log = logging.getLogger(__name__)

# While a follower takes the last one only one more may be made, or it would have to begin anew: the
# next one may be late by this.
PATIENCE: Final = 4
SPACE_RETRY_S: Final = 10.0

# A quiet cluster makes one an hour, if it is worth it: less of the log to read at the next start.
OLD_S: Final = 3_600
OLD_SHARE: Final = 16  # of what is usually due

_T = TypeVar("_T")
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
        self._waiters: list[asyncio.Future[None]] = []  # for the end of the one under way

    def look(self) -> None:
        """Begin a snapshot if one is due."""
        engine, newest = self._engine, self._engine.raft.snapshot
        # A large state is not written more often than as much of the log.
        due_bytes = max(self._log_bytes, newest.size if newest is not None else 0)
        if engine.raft.sends_snapshot:
            due_bytes *= PATIENCE
        is_old = self._now_s() - self._made_s >= OLD_S
        if is_old or engine.raft.room is not Room.ENOUGH:  # the log behind it gives space back
            due_bytes //= OLD_SHARE
        if self._loop.time() >= self._not_before_s and engine.bytes_since_snapshot >= due_bytes:
            self._begin()

    async def make(self) -> None:
        """One of all that is applied, if the newest doesn't stand for that already. Raises NoSpace,
        or Unavailable if the peer stops."""
        if self._closed:
            raise _stopping()
        while self._under_way:  # that one began earlier
            await self._ended()
        if self._begin():
            await self._ended()

    async def _ended(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _begin(self) -> bool:
        head = self._engine.describe() if not (self._under_way or self._closed) else None
        if head is None:
            return False
        pieces = self._capture_state(head.index)
        if pieces is None:
            return False
        self._under_way = True
        self._in_thread(lambda: self._files.begin(head), lambda new: self._take(new, pieces))
        return True

    def _take(self, new: NewSnapshot, pieces: Iterator[bytes]) -> None:
        """One piece a turn, and the loop sees to others first."""
        piece = next(pieces, None)
        if piece is not None:
            self._in_thread(lambda: new.write(piece), lambda _: self._take(new, pieces))
        else:
            self._make_durable(lambda: self._in_thread(new.finish, self._on_made))

    def _in_thread(self, work: Callable[[], _T], then: Callable[[_T], None]) -> None:
        """`then`, in the loop, with what `work` returned; not after `close`."""

        def on_done(done: asyncio.Future[_T]) -> None:
            if done.cancelled() or self._closed:
                return
            try:
                then(done.result())
            except Exception as error:  # noqa: BLE001 (of the thread, or of what follows here)
                self._on_error(error)

        if not self._closed:
            self._loop.run_in_executor(self._thread, work).add_done_callback(on_done)

    def _on_made(self, snapshot: Snapshot) -> None:
        self._files.note_made(snapshot)
        self._on_saved(snapshot)
        self._end(None)

    def _on_error(self, error: Exception) -> None:
        if is_no_space(error):  # what was half written is gone again
            log.warning("snapshot-put-off", extra={"reason": str(error)})
            self._not_before_s = self._loop.time() + SPACE_RETRY_S
            self._end(NoSpace(f"the snapshot found no space ({error}): free some, then try again"))
        else:
            self._on_failed(error)

    def _end(self, error: Unavailable | None) -> None:
        self._under_way = False
        self._made_s = self._now_s()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(None)

    def close(self) -> None:
        """Wait for what is being written; the next start removes what is half made."""
        self._closed = True
        self._end(_stopping())
        self._thread.shutdown(wait=True)


def _stopping() -> Unavailable:
    return Unavailable("this peer is stopping")

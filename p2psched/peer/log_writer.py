"""Group commit: what piled up while one sync ran is written and synced as the next group.

A sync that is quick is done inline (a hand-over to a thread costs more than it); one that is slow
goes to a thread, so that the loop stays free. What a leader sends leaves before its inline sync;
a follower, who has nothing to send before, syncs before it does anything else.
After an error nothing is written any more: the peer must stop (fsync is never tried again).

A write that finds no space is another case: it failed before any sync, and the store has taken it
back. It waits, first in line, and is tried again; nobody is told of it meanwhile, so to the others
this is a disk that takes long. What waits is bounded by `STALLED_BYTES_MAX`: more is a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from p2psched.core.raft.effects import Persist
from p2psched.model.errors import Unavailable
from p2psched.model.limits import MIB
from p2psched.model.raft import Room
from p2psched.peer.errands import Errands
from p2psched.peer.log_marker import LogMarker
from p2psched.store.log import LogStore
from p2psched.store.persist import perform
from p2psched.store.space import NoRoom

INLINE_SYNC_MS_MAX: Final = 0.4  # slower syncs go to the thread
# After an inline sync that took much longer, a group for each INLINE_SYNC_MS_MAX of it goes to the
# thread: a busy machine costs a few, and a disk that hangs now and then rarely holds up the loop.
THREAD_GROUPS_MAX: Final = 256
_WEIGHT: Final = 0.1
STALL_RETRY_S: Final = 0.2
STALLED_BYTES_MAX: Final = 64 * MIB  # of entries and pieces; a follower gets a few MiB at most


_T = TypeVar("_T")
_V = TypeVar("_V")


class SpaceListener(Protocol):
    """Who keeps some space back for the ledger, and looks after what is left."""

    on_room: Callable[[Room], None]  # to be called from the loop, at each change

    def give_back(self) -> bool:
        """A write found no space. True if there is some now. From any thread."""
        ...

    def on_stalled(self, *, stalled: bool) -> None:
        """Writes wait for space from now on, or no more. From the loop."""
        ...


class _Written(NamedTuple):
    took_ms: float
    left: list[Persist]  # that found no space


class LogWriter:
    """`on_synced(token, took_ms)` is called from the loop once all up to `token` is on disk."""

    def __init__(
        self,
        store: LogStore,
        *,
        on_synced: Callable[[int, float], None],
        on_failed: Callable[[Exception], None],
        space: SpaceListener | None = None,
    ) -> None:
        self._store = store
        self._space = space
        self._stalled = False
        self._stalled_bytes = 0
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._thread: Errands[_Written] = Errands("log-writer")
        self._marker = LogMarker(store, on_failed=self._fail)
        self._queue: list[Persist] = []
        self._works: list[Callable[[], None]] = []  # after the next group
        self._scheduled = False  # a flush is on its way, in the loop or in the thread
        self._failed = False  # or closed
        self.sync_ms = 0.0  # moving average, for people
        self.syncs = 0  # groups made durable so far, for people
        # What the thread measures holds its waits for the interpreter too; the least of some is
        # the disk's own time. Slow inline ones count, too.
        self._recent_ms: deque[float] = deque(maxlen=16)
        self._thread_groups = self._recent_ms.maxlen or 0  # left before inline is thought of

    def write(self, persist: Persist, *, first: bool = False) -> None:
        """`first`: in the next turn already, unless one is scheduled."""
        self._queue.append(persist)
        if self._stalled:
            self._stalled_bytes += _size(persist)
            if self._stalled_bytes > STALLED_BYTES_MAX and not self._failed:
                self._fail(OSError(errno.ENOSPC, "too much waits for space"))
        self._schedule(first=first)

    def compact(self) -> None:
        """Remove what a durable snapshot stands for, in the thread, after what was written."""
        self._works.append(self._store.compact)
        self._schedule()

    def run(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Something about the store, in the thread, after what was written. Raises NoRoom if `work`
        does; what else it raises is a failure as that of a write."""
        done: asyncio.Future[_T] = self._loop.create_future()
        if self._failed:
            done.set_exception(Unavailable("this peer is stopping"))
            return done

        def in_thread() -> None:
            try:
                result = work()
            except NoRoom as error:
                self._loop.call_soon_threadsafe(_end, done, done.set_exception, error)
            else:
                self._loop.call_soon_threadsafe(_end, done, done.set_result, result)

        self._works.append(in_thread)
        self._schedule()
        return done

    def _schedule(self, *, first: bool = False) -> None:
        if not self._scheduled and not self._failed:
            self._scheduled = True
            if first:
                self._loop.call_soon(self._flush)
                return
            # Two turns later: first what was sent in this turn is written to its sockets.
            self._loop.call_soon(self._loop.call_soon, self._flush)

    def _flush(self) -> None:
        if self._failed:
            return
        group, self._queue = self._queue, []
        works, self._works = self._works, []
        is_quick = self._thread_groups <= 0 and min(self._recent_ms) <= INLINE_SYNC_MS_MAX
        if is_quick and not works and not any(persist.install for persist in group):
            try:
                written = self._write_and_sync(group)
            except Exception as error:  # noqa: BLE001 (whatever it is, nothing is durable any more)
                self._fail(error)
                return
            self._judge_inline(written.took_ms)
            self._done(group, written)
        else:
            self._thread.do(
                lambda: self._write_and_sync(group, works),
                lambda told: self._on_thread_done(group, told),
            )

    def _judge_inline(self, took_ms: float) -> None:
        if took_ms > 4 * INLINE_SYNC_MS_MAX:
            self._recent_ms.append(took_ms)
            self._thread_groups = min(int(took_ms / INLINE_SYNC_MS_MAX), THREAD_GROUPS_MAX)

    def _on_thread_done(self, group: list[Persist], told: _Written | Exception) -> None:
        if isinstance(told, Exception):
            self._fail(told)
        else:
            self._thread_groups -= 1
            self._recent_ms.append(told.took_ms)
            self._done(group, told)

    def _write_and_sync(
        self, group: list[Persist], works: Sequence[Callable[[], None]] = ()
    ) -> _Written:
        started = time.perf_counter()
        held: list[int] = []  # of each that is written: how many writes the store has had by then
        while not self._write_on(group, held):
            if self._space is None or not self._space.give_back():
                self._write_on(group[: len(held)], held)  # those before it are synced all the same
                break
        left = group[len(held) :]
        took_ms = (time.perf_counter() - started) * 1000
        for work in works:
            work()
        return _Written(took_ms, left)

    def _write_on(self, group: list[Persist], held: list[int]) -> bool:
        """What is not `held` yet, and the sync. False if there was no space: then as much less is
        held as the store took back."""
        try:
            for persist in group[len(held) :]:
                perform(self._store, persist)
                held.append(self._store.writes)
            self._store.sync()
        except NoRoom:
            while held and held[-1] > self._store.writes:
                held.pop()
            return False
        return True

    def _done(self, group: list[Persist], written: _Written) -> None:
        self.sync_ms += _WEIGHT * (written.took_ms - self.sync_ms)
        self._scheduled = False
        left = written.left
        synced = group[: len(group) - len(left)]
        self._queue[:0] = left
        self._note_stall(stalled=bool(left))
        if left:
            self._scheduled = True
            self._loop.call_later(STALL_RETRY_S, self._flush)
        elif self._queue or self._works:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        if synced:
            self.syncs += 1
            self._marker.on_synced()
            self._on_synced(synced[-1].token, written.took_ms)

    def _note_stall(self, *, stalled: bool) -> None:
        self._stalled_bytes = sum(map(_size, self._queue)) if stalled else 0
        if stalled != self._stalled:
            self._stalled = stalled
            if self._space is not None:
                self._space.on_stalled(stalled=stalled)

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._on_failed(error)

    def close(self) -> None:
        """Wait for the write under way; what is queued is dropped, for nobody was told of it."""
        in_order, self._failed = not self._failed, True
        self._thread.close()
        self._marker.close()
        if in_order:
            with contextlib.suppress(OSError):  # the mark before stands, and no lie is told
                self._store.mark_end()
        self._store.close()


def _end(done: asyncio.Future[_T], end: Callable[[_V], None], value: _V) -> None:
    if not done.done():  # else whoever asked has gone
        end(value)


def _size(persist: Persist) -> int:
    piece = persist.piece.data if persist.piece is not None else b""
    return len(piece) + sum(len(entry.payload) for entry in persist.entries)

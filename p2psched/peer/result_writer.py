"""The peer's result store behind one thread, and the newest results in memory before it.

Nothing in the store need be durable at once (it is rebuilt from the ledger), so writes are grouped
over `GROUP_S`: one transaction for many rounds. Whoever waits for a result is served from memory;
reads of older ones see every write before them, or hear that the disk is full.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from p2psched.core.state import LedgerState
from p2psched.model.commands import JobForgotten, JobReopened, Recorded, Stamped
from p2psched.model.errors import NoSpace, Unavailable
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.model.limits import MIB
from p2psched.ports.results import Gap, GapResults, KnownJob, Page

T = TypeVar("T")
Group = tuple[list[Stamped], int, int]  # events, the entry that they end with, bytes of results

SPACE_RETRY_S: Final = 0.5
_LACKS: Final = "no space: what happened lately is not stored on the disk of this peer yet"
_ROW_BYTES: Final = 150  # of an event without its data
# What is committed within this time is stored together. A transaction costs as much as three jobs
# of one task, so the longer the better; nobody waits for its end, for reads end it at once.
GROUP_S: Final = 0.25
# More are stored at once, so that the thread doesn't hold the interpreter for long, ...
GROUP_EVENTS_MAX: Final = 1_600
GROUP_BYTES_MAX: Final = 4 * MIB  # ... and what waits takes little memory: data of results.
RECENT_BYTES_MAX: Final = 8 * MIB  # of the newest results; beyond it the oldest are only on disk
_JOB_BYTES: Final = 1_000  # what a job takes there besides its segments, about
_STALE_MAX: Final = 1_024  # entries of dropped segments, beyond as many as there are others


class Recent:
    """The newest segments of each job, contiguous in position; bounded in bytes over all jobs."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, deque[tuple[int, Segment]]] = {}
        self._order: deque[JobId] = deque()  # one entry a segment, oldest first
        self._bytes = 0
        # Entries in `_order` of segments that were dropped: of a job the first so many.
        self._stale: dict[JobId, int] = {}
        self._stale_count = 0

    def add(self, event: Recorded) -> None:
        held = self._jobs.get(event.job)
        if held is None:
            held = self._jobs[event.job] = deque()
            self._bytes += _JOB_BYTES
        held.append((event.position, event.segment))
        self._order.append(event.job)
        self._bytes += _size(event.segment)
        while self._bytes > RECENT_BYTES_MAX:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        job = self._order.popleft()
        if self._is_stale(job):
            return
        held = self._jobs[job]
        _, segment = held.popleft()
        self._bytes -= _size(segment)
        if not held:
            del self._jobs[job]
            self._bytes -= _JOB_BYTES

    def _is_stale(self, job: JobId) -> bool:
        """True if the first entry of the job is one of a dropped segment; it counts as taken."""
        stale = self._stale.get(job, 0)
        if not stale:
            return False
        self._stale_count -= 1
        if stale == 1:
            del self._stale[job]
        else:
            self._stale[job] = stale - 1
        return True

    def segments(self, job: JobId, position: int, bytes_max: int) -> Page:
        """Segments from `position` on, as many as fit (one at least); none if that one is not
        here any more."""
        page = Page(position)
        held = self._jobs.get(job)
        if not held or position < held[0][0]:
            return page
        size = 0
        for number in range(position - held[0][0], len(held)):
            segment = held[number][1]
            size += _size(segment)
            if page.segments and size > bytes_max:
                break
            page.add(held[number][0], segment)
        return page

    def drop(self, job: JobId) -> None:
        """Some of it counts no more: the store knows which."""
        held = self._jobs.pop(job, None)
        if held is None:
            return
        self._bytes -= _JOB_BYTES + sum(_size(segment) for _, segment in held)
        self._stale[job] = self._stale.get(job, 0) + len(held)
        self._stale_count += len(held)
        if self._stale_count > len(self._order) // 2 + _STALE_MAX:  # jobs go one after another
            self._order = deque(other for other in self._order if not self._is_stale(other))


class ResultWriter:
    """`on_failed` is called once the store can't be written any more."""

    def __init__(self, results: GapResults, *, on_failed: Callable[[BaseException], None]) -> None:
        self._results = results
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="results")
        self._recent = Recent()
        self._stored_index = results.applied_index
        self._events: list[Stamped] = []
        self._bytes = 0  # of data in them
        self._unstored: deque[Group] = deque()  # of the thread: what found no space
        self.written_bytes = 0  # by this process, about
        self._waits_for_space = False
        self._index = results.applied_index
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._gaps = results.gaps()
        self._jump: asyncio.Future[dict[JobId, Gap]] | None = None  # what is missing is looked for
        self._has_gaps = asyncio.Event()
        if self._gaps:
            self._has_gaps.set()

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        """Take the events of one entry; what the store has from an earlier run is passed over."""
        size = 0
        for stamped in events:
            match stamped.event:
                case Recorded():
                    self._recent.add(stamped.event)
                    size += len(stamped.event.segment.data)
                case JobReopened(job=job):
                    self._recent.drop(job)
                case JobForgotten(job=job):
                    self._recent.drop(job)
                    self._gaps.pop(job, None)
                case _:
                    pass
        if applied_index <= self._stored_index:
            return
        self._index = applied_index
        self._events += events
        self._bytes += size
        # An entry without events is noted along with the next one that has some.
        if len(self._events) >= GROUP_EVENTS_MAX or self._bytes >= GROUP_BYTES_MAX:
            self._flush()
        elif self._events and self._timer is None:
            self._timer = self._loop.call_later(GROUP_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._events and not self._closed:
            group = (self._events, self._index, self._bytes)
            self._events, self._bytes = [], 0
            self._store_in_thread([group])

    def _store_in_thread(self, groups: list[Group]) -> None:
        self._loop.run_in_executor(self._thread, self._store, groups).add_done_callback(
            self._on_stored
        )

    def _store(self, groups: list[Group]) -> bool:
        """In the thread, after what found no space before. False if something waits for space: then
        it stays in order, and memory answers for it as far as it reaches. It is bounded by what
        the ledger, on the same disk, could still write."""
        self._unstored += groups
        try:
            while self._unstored:
                events, index, size = self._unstored[0]
                self._results.store(events, index)
                self._unstored.popleft()
                # About, and once more in the store's own log.
                self.written_bytes += 2 * (size + _ROW_BYTES * len(events))
        except NoSpace:
            return False
        return True

    def _on_stored(self, done: asyncio.Future[bool]) -> None:
        self._on_done(done)
        if done.cancelled() or done.exception() is not None or done.result() or self._closed:
            return
        if not self._waits_for_space:
            self._waits_for_space = True
            self._loop.call_later(SPACE_RETRY_S, self._retry)

    def _retry(self) -> None:
        self._waits_for_space = False
        if not self._closed:
            self._store_in_thread([])

    def make_durable(self, done: Callable[[], None]) -> None:
        """Call `done` once all that was handed to `store` is durable; not after `close`."""
        if self._closed:
            return
        self._flush()
        storing = self._loop.run_in_executor(self._thread, self._checkpoint, self._index)

        def on_stored(stored: asyncio.Future[bool]) -> None:
            self._on_done(stored)
            if stored.cancelled() or stored.exception() is not None:
                return
            if stored.result():
                done()
            elif not self._closed:
                self._loop.call_later(SPACE_RETRY_S, self.make_durable, done)

        storing.add_done_callback(on_stored)

    def _checkpoint(self, index: int) -> bool:
        """In the thread. False if there is no space for it."""
        if not self._store([]):
            return False
        try:
            self._results.checkpoint(index)
        except NoSpace:
            return False
        return True

    # --- what this peer has not seen happen ---

    def on_restored(self, state: LedgerState) -> None:
        """The ledger goes on from this state. Unless the store has it all from an earlier run, it
        lacks what led there."""
        if state.applied_index <= self._index:
            return
        self._flush()
        self._recent = Recent()  # its positions would not follow each other
        self._index = self._stored_index = index = state.applied_index
        upto, jobs = state.command_index, known_jobs(state)

        def jump() -> dict[JobId, Gap]:
            self._unstored.clear()  # what the state stands for is fetched from others
            self._results.jump(index, jobs, upto)
            return self._results.gaps()

        before, self._jump = self._jump, self._loop.create_future()
        if before is not None and not before.done():
            before.set_result({})  # whoever waits for it waits for this one
        self._try_jump(jump, self._jump)

    def _try_jump(
        self, jump: Callable[[], dict[JobId, Gap]], jumped: asyncio.Future[dict[JobId, Gap]]
    ) -> None:
        """Until there is space for it."""
        if self._closed or jumped.done():
            return

        def on_tried(tried: asyncio.Future[dict[JobId, Gap]]) -> None:
            error = None if tried.cancelled() else tried.exception()
            if tried.cancelled() or jumped.done():
                return
            if isinstance(error, NoSpace):
                self._loop.call_later(SPACE_RETRY_S, self._try_jump, jump, jumped)
            elif error is not None:
                jumped.cancel()
                self._on_failed(error)
            else:
                self._jump, self._gaps = None, tried.result()
                jumped.set_result(self._gaps)
                self._has_gaps.set()

        self._loop.run_in_executor(self._thread, jump).add_done_callback(on_tried)

    async def gap_of(self, job: JobId) -> Gap | None:
        """What may be missing of a job here; None if it is whole."""
        while (jump := self._jump) is not None:
            await asyncio.wait([jump])
            if jump.cancelled():
                raise Unavailable("this peer is stopping: ask another one")
            await asyncio.sleep(0)
        return self._gaps.get(job)

    async def wait_gap(self) -> tuple[JobId, Gap]:
        """The oldest gap, once there is one."""
        while not self._gaps:
            self._has_gaps.clear()
            await self._has_gaps.wait()
        return next(iter(self._gaps.items()))

    def postpone_gap(self, job: JobId) -> None:
        """Others go first."""
        gap = self._gaps.pop(job, None)
        if gap is not None:
            self._gaps[job] = gap

    @property
    def gap_count(self) -> int:
        return len(self._gaps)

    async def close_gap(self, job: JobId, gap: Gap) -> None:
        """Everything that was missing is stored."""
        closed = await self.read(lambda results: results.end_fill(job, gap))
        if closed and self._gaps.get(job) == gap:
            del self._gaps[job]

    def _on_done(self, done: asyncio.Future[bool]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._on_failed(error)

    def is_whole(self, job: JobId) -> bool:
        """False if something may be missing of a job here, or that is not known yet."""
        return self._jump is None and job not in self._gaps

    def newest(self, job: JobId, position: int, bytes_max: int) -> Page:
        """As `segments`, of what is in memory."""
        return self._recent.segments(job, position, bytes_max)

    async def segments(self, job: JobId, position: int, bytes_max: int) -> Page:
        """Final results of a job in commit order from `position` on; see port `Results`."""
        recent = self._recent.segments(job, position, bytes_max)
        if recent.segments:
            return recent
        return await self.read(lambda results: results.segments(job, position, bytes_max))

    async def read(self, query: Callable[[GapResults], T]) -> T:
        """Run a query after everything that was handed to `store` before, but for what finds no
        space."""
        self._flush()
        return await self._loop.run_in_executor(self._thread, query, self._results)

    async def read_of(self, job: JobId, query: Callable[[GapResults], T]) -> T:
        """As `read`, of one job (of peers if it is empty). Raises NoSpace while some of what
        happened to it finds no space, for the answer would lack that."""

        def whole(results: GapResults) -> T:
            if self._unstored and not self._store([]) and self._lacks(job):
                raise NoSpace(_LACKS, retry_after_s=SPACE_RETRY_S)
            return query(results)

        return await self.read(whole)

    def _lacks(self, job: JobId) -> bool:
        """In the thread. What happens to peers is no job's."""
        groups = (events for events, _, _ in self._unstored)
        return any(getattr(e.event, "job", "") == job for events in groups for e in events)

    def close(self) -> None:
        """Store what waits, then close."""
        self._flush()
        self._closed = True
        if self._jump is not None:
            self._jump.cancel()
        self._thread.shutdown(wait=True)
        self._results.close()


def known_jobs(state: LedgerState) -> dict[JobId, KnownJob]:
    """Cost O(jobs)."""
    return {
        job.id: KnownJob(job.segments, job.ended_wall_ms, job.full) for job in state.jobs.values()
    }


def _size(segment: Segment) -> int:
    return len(segment.data) + 200  # 200: the objects around it, about

"""Fetches a backup from a cluster that works, while it works.

One peer tells its state as of an entry that has all that was acknowledged before. Results, history
and large data then come from any peer, by the calls that all clients use, up to that entry. What
happens to a job meanwhile, so that its results are not those of the state any more, is noted as a
command that whoever restores it applies: a job that was forgotten is forgotten, one that was run
again is run again. Memory holds the state once, and a few pages.
"""

from __future__ import annotations

import asyncio
import mmap
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import BinaryIO, Final

import msgspec

from p2psched.client import blobs
from p2psched.client.session import Session
from p2psched.core.machine import Machine
from p2psched.core.snapshot import restore_machine
from p2psched.model.backup_messages import BackupBegun, BeginBackup, ReadState, StateRead
from p2psched.model.blob import BlobRef
from p2psched.model.commands import Forget, JobReopened, Recorded, Retry, Stamped
from p2psched.model.errors import (
    NoSpace,
    NotFound,
    P2PSchedError,
    ResultLost,
    TimedOut,
    Unavailable,
    first_of,
)
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.limits import KIB
from p2psched.model.messages import FetchHistory, FetchResults, History, ResultPage
from p2psched.model.raft import Snapshot
from p2psched.model.version import VERSION
from p2psched.net.calls import CallClient
from p2psched.store.backup_file import (
    FORMAT,
    BackupWriter,
    BlobPart,
    Head,
    JobPart,
    Rest,
    StatePart,
)
from p2psched.store.space import is_no_space

BEGIN_S: Final = 330.0  # a little longer than a peer takes for its snapshot
PART_BYTES: Final = 256 * KIB
PART_S: Final = 30.0  # for one such
BEGINS_MAX: Final = 3  # of states that newer ones took the place of, before it is given up
JOBS_TOGETHER: Final = 16
PARTS_AHEAD: Final = 2  # of each
HISTORY_PAGE: Final = 200

Progress = Callable[[int], None]


class BackedUp(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    bytes: int
    entry: int  # of the ledger, that it is of
    jobs: int
    jobs_running: int
    blobs: int
    blob_bytes: int
    missing: int  # large data that nobody had


async def backup(
    session: Session,
    calls: CallClient,
    writer: BackupWriter,
    *,
    ended: bool,
    large: bool,
    begin: Callable[[int], Progress],
) -> BackedUp:
    """`calls` lead to the peer that tells the state. `ended`: also jobs that have ended, with their
    results; `large`: large results, too (what unfinished jobs work on always comes along). `begin`
    hears how many bytes there are, about. Raises Unavailable, NoSpace, TimedOut."""
    with tempfile.TemporaryFile(dir=writer.path.parent) as spool:
        begun = await _fetch_state(calls, spool)
        with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as state:
            machine = Machine()
            await asyncio.to_thread(_open, machine, state)
            work = _Backup(session, writer, machine, begun, ended=ended, large=large)
            return await work.run(state, begin(work.total_bytes))


def _open(machine: Machine, state: mmap.mmap) -> None:
    with memoryview(state) as view:
        restore_machine(machine, view)


async def _fetch_state(calls: CallClient, spool: BinaryIO) -> BackupBegun:
    for _ in range(BEGINS_MAX):
        try:
            async with asyncio.timeout(BEGIN_S):
                begun = await calls.call(BeginBackup())
        except TimeoutError as error:
            raise TimedOut(f"no snapshot within {BEGIN_S:.0f} s: try another --peer") from error
        assert isinstance(begun, BackupBegun)
        if await _copy_state(calls, begun.snapshot, spool):
            return begun
    raise Unavailable(
        f"its snapshots are replaced sooner than they are read, {BEGINS_MAX} times: try again when "
        "there is less to do, or through a quicker link"
    )


async def _copy_state(calls: CallClient, snapshot: Snapshot, spool: BinaryIO) -> bool:
    """False if a newer one has taken its place."""
    spool.seek(0)
    spool.truncate()
    at = 0
    while at < snapshot.size:
        try:
            async with asyncio.timeout(PART_S):
                part = await calls.call(ReadState(snapshot, at, PART_BYTES))
        except TimeoutError as error:
            raise TimedOut(f"no part of the state within {PART_S:.0f} s") from error
        assert isinstance(part, StateRead)
        if not part.data:
            return False
        try:
            await asyncio.to_thread(spool.write, part.data)
        except OSError as error:
            if is_no_space(error):
                raise NoSpace("no space beside the backup: free some") from error
            raise
        at += len(part.data)
    spool.flush()
    return True


class _Backup:
    """One backup, from its state on."""

    def __init__(
        self,
        session: Session,
        writer: BackupWriter,
        machine: Machine,
        begun: BackupBegun,
        *,
        ended: bool,
        large: bool,
    ) -> None:
        self._session = session
        self._writer = writer
        self._machine = machine
        self._begun = begun
        self._ended = ended
        self._large = large
        self._after: list[Forget | Retry] = []
        self._jobs = [job.id for job in machine.jobs.values() if ended or not job.ended]
        if not ended:
            self._after += [Forget(job) for job in machine.ended]
        self._refs, self._left_out = self._wanted()
        self._missing = list(self._left_out)
        self._blob_bytes = 0
        self._blobs = 0

    @property
    def total_bytes(self) -> int:
        """About."""
        jobs = self._machine.jobs
        small = sum(
            jobs[name].result_bytes - sum(blob.ref.size for blob in jobs[name].blobs.values())
            for name in self._jobs
        )
        return self._begun.snapshot.size + small + sum(ref.size for ref in self._refs)

    def _wanted(self) -> tuple[list[BlobRef], list[BlobRef]]:
        """Blobs that come along, and large results that don't."""
        wanted: dict[BlobRef, None] = {}
        out: dict[BlobRef, None] = {}
        for name in self._jobs:
            job = self._machine.jobs[name]
            wanted.update(dict.fromkeys(job.spec.blobs))
            results = dict.fromkeys(blob.ref for blob in job.blobs.values())
            (wanted if self._large else out).update(results)
        return list(wanted), [ref for ref in out if ref not in wanted]

    async def run(self, state: mmap.mmap, progress: Progress) -> BackedUp:
        machine, begun = self._machine, self._begun
        failure: P2PSchedError | None = None
        head = Head(
            format=FORMAT,
            version=VERSION,
            made_ms=time.time_ns() // 1_000_000,
            cluster=begun.cluster,
            peer=begun.peer,
            generation=machine.generation,
            level=machine.level,
            command_index=machine.command_index,
            snapshot=begun.snapshot,
            jobs=len(self._jobs),
            blob_bytes=sum(ref.size for ref in self._refs),
            ended=self._ended,
            large=self._large,
        )
        await self._put(head)
        for at in range(0, len(state), PART_BYTES):
            await self._put(StatePart(state[at : at + PART_BYTES]))
            progress(min(PART_BYTES, len(state) - at))
        try:
            await self._put_jobs(progress)
        except* P2PSchedError as errors:
            failure = first_of(errors)
        if failure is not None:
            raise failure
        for ref in self._refs:
            await self._put_blob(ref, progress)
        rest = Rest(
            tuple(self._after),
            tuple(self._missing),
            len(self._jobs),
            self._blobs,
            self._blob_bytes,
        )
        await self._put(rest)
        size = await asyncio.to_thread(self._writer.finish)
        return BackedUp(
            path=str(self._writer.path),
            bytes=size,
            entry=begun.snapshot.index,
            jobs=len(self._jobs),
            jobs_running=len(machine.running),
            blobs=self._blobs,
            blob_bytes=self._blob_bytes,
            missing=len(self._missing) - len(self._left_out),
        )

    async def _put(self, record: Head | StatePart | JobPart | BlobPart | Rest) -> None:
        await asyncio.to_thread(self._writer.add, record)

    # --- jobs ---

    async def _put_jobs(self, progress: Progress) -> None:
        """One after another in the file; some are fetched ahead."""
        names: Iterator[JobId] = iter([*self._jobs, JobId("")])
        coming: deque[asyncio.Queue[JobPart]] = deque()

        async def fetch(name: JobId, parts: asyncio.Queue[JobPart]) -> None:
            async for part in self._parts(name):
                await parts.put(part)

        async with asyncio.TaskGroup() as group:

            def fetch_next() -> None:
                name = next(names, None)
                if name is not None:
                    coming.append(asyncio.Queue(PARTS_AHEAD))
                    group.create_task(fetch(name, coming[-1]))

            for _ in range(JOBS_TOGETHER):
                fetch_next()
            while coming:
                parts = coming[0]
                while True:
                    part = await parts.get()
                    await self._put(part)
                    progress(sum(len(segment.data) for segment in part.segments))
                    if part.is_last:
                        break
                coming.popleft()
                fetch_next()

    async def _parts(self, name: JobId) -> AsyncIterator[JobPart]:
        """The last one says so, whatever becomes of the job."""
        positions = self._machine.jobs[name].segments if name else 0
        last = JobPart(name, is_last=True, positions=positions, position=positions)
        try:
            grants: dict[int, tuple[int, PeerId]] = {}
            async for part in self._history(name, positions, grants):
                yield part
            position = 0
            while position < positions:
                body = FetchResults(name, position)
                page = await self._session.call(body, ResultPage)
                if page.next_position <= position:
                    raise Unavailable(f"results of job {short(name)} are not to be had just now")
                yield _page_of(page, last, position, grants)
                position = page.next_position
        except NotFound:  # it was forgotten meanwhile
            self._after.append(Forget(name))
        yield msgspec.structs.replace(last, next_position=positions)

    async def _history(
        self, name: JobId, positions: int, grants: dict[int, tuple[int, PeerId]]
    ) -> AsyncIterator[JobPart]:
        upto, after, more = self._machine.command_index, 0, True
        spec = None
        while more:
            body = FetchHistory(name, after, HISTORY_PAGE, here_only=True)
            page = await self._session.call(body, History)
            spec = spec or page.spec
            events = tuple(event for event in page.events if event.index <= upto)
            grants.update(_grants_of(events))
            yield JobPart(name, is_last=False, positions=positions, events=events, spec=page.spec)
            for stamped in page.events[len(events) :]:
                if isinstance(stamped.event, JobReopened) and spec is not None:
                    self._after.append(Retry(name, spec, stamped.event.tasks))
            more = page.more and bool(page.events)
            after = page.events[-1].index if page.events else after
            if not name and after >= upto:  # the peers' goes on for ever
                return

    # --- blobs ---

    async def _put_blob(self, ref: BlobRef, progress: Progress) -> None:
        at = 0

        def take(chunk: bytes) -> None:  # in a thread
            nonlocal at
            self._writer.add(BlobPart(ref, at, chunk))
            at += len(chunk)

        try:
            await blobs.pull(self._session, ref, take, progress)
            if not ref.size:
                await self._put(BlobPart(ref, 0, b""))
        except (ResultLost, NotFound) as error:
            if at:
                raise Unavailable(f"blob {ref} went away while it was read: try again") from error
            self._missing.append(ref)
        else:
            self._blobs += 1
            self._blob_bytes += ref.size


def _grants_of(events: tuple[Stamped, ...]) -> dict[int, tuple[int, PeerId]]:
    found = (stamped.event for stamped in events)
    return {e.position: (e.grant, e.peer) for e in found if isinstance(e, Recorded)}


def _page_of(
    page: ResultPage, last: JobPart, position: int, grants: dict[int, tuple[int, PeerId]]
) -> JobPart:
    kept = [at < last.positions for at in page.positions]
    at = tuple(at for at, is_kept in zip(page.positions, kept, strict=True) if is_kept)
    segments = tuple(s for s, is_kept in zip(page.segments, kept, strict=True) if is_kept)
    return msgspec.structs.replace(
        last,
        is_last=False,
        position=position,
        next_position=min(page.next_position, last.positions),
        at=at,
        segments=segments,
        grants={place: grants[place] for place in at if place in grants},
    )

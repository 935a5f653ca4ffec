"""Bringing blobs here from other peers: chunk by chunk, verified, from one source after the other.

Memory is flat: a chunk is asked for only when there is a place for it, WINDOW of each source and
CHUNKS_MAX in all. What has arrived stays when a source breaks off, and the next goes on with it.
Whoever wants the same blob at the same time shares one run.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import BlobChunk, ReadBlob
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.ids import PeerId, short
from p2psched.peer.blob_places import LOST_RETRY_S, Places
from p2psched.peer.groups import causes
from p2psched.peer.others import Others
from p2psched.peer.shared_runs import SharedRuns
from p2psched.store.blob_incoming import Incoming
from p2psched.store.blobs import BlobFiles

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW: Final = 8  # chunks on their way from one source
CHUNKS_MAX: Final = 24  # chunks on their way in all, 12 MiB
BLOBS_MAX: Final = 16  # blobs on their way; further ones wait
CHUNK_PATIENCE_S: Final = 5.0  # for one chunk; a source that takes longer is left


class OffLoop(Protocol):
    """Runs what blocks in a thread: `quick` reads and writes a chunk, `slow` syncs."""

    async def quick(self, work: Callable[..., T], *values: object) -> T: ...

    async def slow(self, work: Callable[..., T], *values: object) -> T: ...


class _SourceFailed(Exception):
    """This source is of no use for the blob now; the text says why."""


class Fetcher:
    def __init__(
        self,
        store: BlobFiles,
        *,
        places: Places,
        others: Others,
        off_loop: OffLoop,
        group: asyncio.TaskGroup,
    ) -> None:
        self._store = store
        self._places = places
        self._others = others
        self._off_loop = off_loop
        self._runs: SharedRuns[bytes, None] = SharedRuns(group)
        self._blobs = asyncio.Semaphore(BLOBS_MAX)
        self._chunks = asyncio.Semaphore(CHUNKS_MAX)
        self._windows: dict[PeerId, asyncio.Semaphore] = {}

    async def fetch(self, ref: BlobRef, first: Sequence[PeerId] = ()) -> None:
        """Until the blob is here, durable. Raises ResultLost once every live peer has said that it
        has it not; Unavailable without space; OSError if the disk fails."""
        if not self._store.touch(ref):
            await self._runs.join(ref.digest, lambda: self._fetch(ref, first))

    async def _fetch(self, ref: BlobRef, first: Sequence[PeerId]) -> None:
        while True:
            async with self._blobs:
                if self._store.touch(ref) or await self._fetch_once(ref, first):
                    return
            await asyncio.sleep(LOST_RETRY_S)

    async def _fetch_once(self, ref: BlobRef, first: Sequence[PeerId]) -> bool:
        """False if some live peer did not answer: it may have the blob."""
        tried: set[PeerId] = set()
        for source in self._places.likely(ref, first):
            tried.add(source)
            if await self._fetch_from(ref, source, None):
                return True
        try:
            found = await self._places.ask_all(ref)
        except Unavailable:
            return False
        for source in sorted(found, key=lambda peer: peer in tried):
            if await self._fetch_from(ref, source, found[source]):
                return True
        return False

    async def _fetch_from(self, ref: BlobRef, source: PeerId, listed: bytes | None) -> bool:
        """True if the blob came; False if this source is of no use for it now."""
        try:
            data = b""
            if digests.chunk_count(ref.size) == 1 and self._store.incoming(ref) is None:
                data = await self._read_only_chunk(ref, source)
                listed = hashlib.sha256(data).digest()
            elif listed is None:
                listed = await self._ask_list(ref, source)
            incoming = await self._off_loop.slow(self._store.begin, ref, listed)
            if data:
                await self._off_loop.quick(incoming.write, 0, data)
            else:
                await self._fill(incoming, source)
        except _SourceFailed as error:
            self._places.forget(ref, source)
            log.info(
                "blob-source-failed",
                extra={"blob": str(ref), "peer": source, "error": str(error)},
            )
            return False
        await self._off_loop.slow(self._store.finish, incoming)
        self._places.note(ref, (source,))
        return True

    async def _ask_list(self, ref: BlobRef, source: PeerId) -> bytes:
        try:
            return await self._places.list_from(ref, source)
        except P2PSchedError as error:
            raise _SourceFailed(str(error)) from error

    async def _read_only_chunk(self, ref: BlobRef, source: PeerId) -> bytes:
        """Of a blob that has one chunk: it needs no list."""
        async with self._place(source):
            data = await self._ask_chunk(ref, 0, source)
        if len(data) != ref.size or digests.digest_of(data) != ref.digest:
            raise _SourceFailed("it sent a chunk that is not what its checksum says")
        return data

    async def _fill(self, incoming: Incoming, source: PeerId) -> None:
        """Ask for what is missing. Raises _SourceFailed; what came before stays."""
        numbers = deque(incoming.missing())
        iterator = self._take(numbers)
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as pulls:
                for _ in range(min(WINDOW, len(numbers))):
                    pulls.create_task(self._pull(incoming, source, iterator))
        except* (P2PSchedError, _SourceFailed, OSError) as errors:
            failure = _first(errors)
        if failure is not None:
            raise failure

    @staticmethod
    def _take(numbers: deque[int]) -> Iterator[int]:
        while numbers:
            yield numbers.popleft()

    async def _pull(self, incoming: Incoming, source: PeerId, numbers: Iterator[int]) -> None:
        for number in numbers:
            async with self._place(source):
                data = await self._ask_chunk(incoming.ref, number, source)
                try:
                    await self._off_loop.quick(incoming.write, number, data)
                except ValueError as error:
                    raise _SourceFailed(f"it sent a wrong chunk: {error}") from error

    async def _ask_chunk(self, ref: BlobRef, number: int, source: PeerId) -> bytes:
        try:
            async with asyncio.timeout(CHUNK_PATIENCE_S):
                answer = await self._others.call(source, ReadBlob(ref, number, here=True))
        except TimeoutError as error:
            raise _SourceFailed(f"no chunk within {CHUNK_PATIENCE_S:g} s") from error
        except P2PSchedError as error:
            raise _SourceFailed(str(error)) from error
        if not isinstance(answer, BlobChunk):
            raise _SourceFailed(f"peer {short(source)} answered {type(answer).__name__}")
        return answer.data

    def _place(self, source: PeerId) -> _Place:
        window = self._windows.setdefault(source, asyncio.Semaphore(WINDOW))
        return _Place(window, self._chunks)


class _Place:
    """A place for one chunk: of its source, and of all."""

    def __init__(self, window: asyncio.Semaphore, total: asyncio.Semaphore) -> None:
        self._window = window
        self._total = total

    async def __aenter__(self) -> None:
        await self._window.acquire()
        try:
            await self._total.acquire()
        except BaseException:
            self._window.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._total.release()
        self._window.release()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """A failure of ours before one of the source: another source would not mend it."""
    return min(causes(errors), key=lambda error: isinstance(error, _SourceFailed))

"""What results refer to, brought to the caller: values before they are looked at, files when asked.

A value that is a blob is downloaded before its result is handed out, so that `value` never waits:
into memory if it is small, else into a file without a name, which arrays are then views of. Files
stay with the peers until somebody saves or opens them.
"""

from __future__ import annotations

import asyncio
import io
import mmap
import os
import tempfile
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

from p2psched.client import blobs
from p2psched.client.results import TaskResult, results_of
from p2psched.client.session import Asker, Session
from p2psched.model import limits
from p2psched.model.blob import BlobRef
from p2psched.model.errors import ResultLost
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.net.together import together
from p2psched.run.host.files import Fetch, File, Ref, file_of

IN_MEMORY_BYTES_MAX: Final = 1 * limits.MIB
# Results that are downloaded together, and held until the caller has taken them.
TOGETHER_MAX: Final = 16
TOGETHER_BYTES_MAX: Final = 16 * limits.MIB

Download = Callable[[BlobRef, BinaryIO], Awaitable[None]]  # write a blob there, in order, verified


class Arrived:
    """The blobs of one result (a `pickling.Source`)."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._bytes: dict[Ref, bytes] = {}  # whoever wants to write makes a copy
        self._files: dict[Ref, int] = {}
        self.lost: ResultLost | None = None  # what `map` raises instead

    def map(self, ref: Ref) -> memoryview:
        """Each time anew, and private: work in place on one value is not seen by the next."""
        if self.lost is not None:
            raise self.lost
        if ref in self._bytes:
            return memoryview(self._bytes[ref])
        if ref not in self._files:
            raise ResultLost(
                f"the value is in blob {ref[0].hex()}, which was not brought here: take results "
                "from a client's job"
            )
        return memoryview(mmap.mmap(self._files[ref], ref[1], access=mmap.ACCESS_COPY))

    def file(self, name: str, ref: Ref) -> File:
        return file_of(name, ref, fetch=self._fetch)

    async def bring(self, refs: Sequence[Ref], download: Download) -> None:
        """Raises what `download` raises."""
        for ref in refs:
            if ref[1] <= IN_MEMORY_BYTES_MAX:
                sink = io.BytesIO()
                await download(BlobRef(*ref), sink)
                self._bytes[ref] = sink.getvalue()
            else:
                with tempfile.TemporaryFile() as file:
                    await download(BlobRef(*ref), file)
                    file.flush()
                    self._files[ref] = descriptor = os.dup(file.fileno())
                    weakref.finalize(self, os.close, descriptor)


class Downloads:
    """Of one client. `fetch` blocks, from any thread; `download` belongs to the client's loop."""

    def __init__(self, download: Download, fetch: Fetch) -> None:
        self._download = download
        self._fetch = fetch

    @staticmethod
    def of(session: Session) -> Downloads:
        async def download(ref: BlobRef, sink: BinaryIO) -> None:
            await blobs.download(session, ref, sink)

        async def download_alone(ref: Ref, path: str) -> None:
            async with session.twin() as own:
                await blobs.download(own, BlobRef(*ref), Path(path))

        def fetch(ref: Ref, path: str) -> None:
            # The caller may be in an event loop, and it waits: so in a loop of its own.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, download_alone(ref, path)).result()

        return Downloads(download, fetch)

    async def complete_all(self, results: Sequence[TaskResult]) -> list[TaskResult]:
        """All of them at once. Raises Unavailable if nobody answers."""
        return await together(self.complete, results)

    async def complete(self, result: TaskResult) -> TaskResult:
        """The result with what its value needs. If that is nowhere any more, `value` raises
        ResultLost. Raises Unavailable if nobody answers."""
        if not result.has_blobs:
            return result
        arrived = Arrived(self._fetch)
        try:
            await arrived.bring(result.value_refs, self._download)
        except ResultLost as error:
            arrived.lost = error
        return result.with_source(arrived)


async def results_with_values(
    session: Asker, job: JobId, segments: Iterable[Segment]
) -> AsyncIterator[TaskResult]:
    """The tasks of some segments, in order; what their values need is here. Some are downloaded
    together: one after the other each would wait for its own answer."""
    downloads = Downloads.of(session) if isinstance(session, Session) else None
    waiting: list[TaskResult] = []
    waiting_bytes = 0
    for segment in segments:
        for result in results_of(job, segment):
            if downloads is None or not (segment.blobs or waiting):
                yield result
                continue
            waiting.append(result)
            waiting_bytes += sum(size for _, size in result.value_refs)
            if len(waiting) == TOGETHER_MAX or waiting_bytes >= TOGETHER_BYTES_MAX:
                for complete in await downloads.complete_all(waiting):
                    yield complete
                waiting, waiting_bytes = [], 0
    if downloads is not None:
        for complete in await downloads.complete_all(waiting):
            yield complete

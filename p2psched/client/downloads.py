"""What results refer to, brought to the caller: values before they are looked at, files when asked.

A value that is a blob is downloaded before its result is handed out, so that `value` never waits:
into memory if it is small, else into a file without a name, which arrays are then views of. Files
stay with the peers until somebody saves or opens them.
"""

from __future__ import annotations

import io
import mmap
import os
import tempfile
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import BinaryIO, Final

from p2psched.client.results import TaskResult
from p2psched.model import limits
from p2psched.model.blob import BlobRef
from p2psched.model.errors import ResultLost
from p2psched.run.host.files import Fetch, File, Ref, file_of

IN_MEMORY_BYTES_MAX: Final = 1 * limits.MIB

Download = Callable[[BlobRef, BinaryIO], Awaitable[None]]  # write a blob there, in order, verified


class Arrived:
    """The blobs of one result (a `pickling.Source`)."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._bytes: dict[Ref, bytes] = {}
        self._files: dict[Ref, int] = {}

    def map(self, ref: Ref) -> memoryview:
        """Each time anew, and private: work in place on one value is not seen by the next."""
        if ref in self._bytes:
            return memoryview(bytearray(self._bytes[ref]))
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

    async def complete(self, result: TaskResult) -> TaskResult:
        """The result with what its value needs. Raises ResultLost if that is nowhere any more."""
        if not result.has_blobs:
            return result
        arrived = Arrived(self._fetch)
        await arrived.bring(result.value_refs, self._download)
        return result.with_source(arrived)

"""A blob on its way in: a file of its final size, filled chunk by chunk in any order.

What is kept over a crash of the peer is the file alone. Whoever goes on with it has the list of
chunk digests, and a chunk that is there is known by its digest: no other note is needed, and none
can be wrong.

Invariant: a chunk counts as present only after its bytes were verified.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.taskset import TaskSet
from p2psched.store.blob_calls import Bytes, FileCalls, open_plain, read_at, telling_space

_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK


class Incoming:
    """Made by `store.blobs.BlobFiles.begin`. Any thread may call; one blob's writes take turns."""

    def __init__(
        self,
        path: Path,
        ref: BlobRef,
        chunk_digests: Sequence[bytes],
        *,
        calls: FileCalls,
        now_ms: Callable[[], int],
    ) -> None:
        self.path: Final = path
        self.ref: Final = ref
        self.digests: Final = tuple(chunk_digests)
        self.lock: Final = threading.RLock()
        self.used_ms = now_ms()
        self._now_ms = now_ms
        self._calls = calls
        self._descriptor = -1
        self._present = bytearray(len(self.digests))
        self._left = len(self.digests)
        self._left_bytes = ref.size
        self._closed = False

    @property
    def left_bytes(self) -> int:
        """Of the chunks that are missing."""
        return self._left_bytes

    @property
    def is_whole(self) -> bool:
        return not self._left

    @property
    def is_closed(self) -> bool:
        """Nothing can be written any more: it is finished, was given up, or rested for long."""
        return self._closed

    def missing(self) -> TaskSet:
        with self.lock:
            return TaskSet.from_indices(n for n, there in enumerate(self._present) if not there)

    def prepare(self) -> None:
        """Open the file, and look at what an earlier process left in it. Idempotent."""
        with self.lock:
            if self._descriptor >= 0 or self._closed:
                return
            with telling_space(self.ref.size, self.path.parent):
                self._descriptor, status = open_plain(self.path, _OPEN)
            if status.st_size > self.ref.size:
                os.ftruncate(self._descriptor, self.ref.size)
            self._recognize(status.st_size)

    def _recognize(self, size: int) -> None:
        for number, digest in enumerate(self.digests):
            offset = number * digests.CHUNK_BYTES
            if offset >= size:
                return
            length = digests.chunk_size(self.ref.size, number)
            if digests.fits(read_at(self._descriptor, length, offset), digest):
                self._mark(number)

    def write(self, number: int, data: Bytes) -> None:
        """Take one chunk. Raises ValueError if it is not the one that its digest names; OSError,
        or Unavailable without space. One that is there already is passed over."""
        if not 0 <= number < len(self.digests):
            raise ValueError(f"a blob of {len(self.digests)} chunks has no chunk {number}")
        expected = digests.chunk_size(self.ref.size, number)
        if len(data) != expected:
            raise ValueError(f"chunk {number} has {expected:,} bytes, not {len(data):,}")
        if not digests.fits(memoryview(data), self.digests[number]):
            raise ValueError(f"chunk {number} is not what its checksum says")
        with self.lock:
            self.used_ms = self._now_ms()
            if self._present[number] or self._closed:
                return
            with telling_space(self._left_bytes, self.path.parent):
                self._calls.write_at(self._descriptor, data, number * digests.CHUNK_BYTES)
            self._mark(number)

    def sync(self) -> None:
        """All chunks are there: make them durable, and the file unchangeable."""
        with self.lock:
            assert self.is_whole
            assert self._descriptor >= 0
            os.fchmod(self._descriptor, 0o444)
            with telling_space(self.ref.size, self.path.parent):
                self._calls.sync(self._descriptor)

    def close(self) -> None:
        """Keep the file, for whoever goes on with it. Idempotent."""
        with self.lock:
            self._closed = True
            if self._descriptor >= 0:
                descriptor, self._descriptor = self._descriptor, -1
                os.close(descriptor)

    def discard(self) -> None:
        """Give the file up: after a failed sync nobody knows what is in it."""
        with self.lock:
            self.close()
            self.path.unlink(missing_ok=True)

    def _mark(self, number: int) -> None:
        self._present[number] = 1
        self._left -= 1
        self._left_bytes -= digests.chunk_size(self.ref.size, number)

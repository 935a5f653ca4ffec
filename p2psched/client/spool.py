"""Bytes on their way into a job: what is large lies in an unlinked file, not in memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2psched.model import digests, limits
from p2psched.model.blob import BlobRef
from p2psched.model.errors import UsageError

READ_BYTES: Final = 1 * limits.MIB

Buffer = bytes | bytearray | memoryview
ReadAt = Callable[[int, int], bytes]  # size, offset


@dataclass(frozen=True, slots=True)
class Upload:
    """A blob that must be in the cluster before the job is submitted."""

    ref: BlobRef
    listed: bytes = field(repr=False)  # the digests of its chunks
    source: Path | Spool | bytes
    offset: int = 0  # in a spool

    @contextlib.contextmanager
    def opened(self) -> Iterator[ReadAt]:
        """How to read it. Raises UsageError for a file that can't be read any more."""
        source = self.source
        if isinstance(source, bytes):
            yield InMemory(source)
        elif isinstance(source, Spool):
            yield lambda size, offset: os.pread(source.descriptor, size, self.offset + offset)
        else:
            try:
                file = source.open("rb")
            except OSError as error:
                raise UsageError(f"can't read {source}: {error.strerror}") from error
            with file:
                yield lambda size, offset: os.pread(file.fileno(), size, offset)


@dataclass(frozen=True, slots=True)
class InMemory:
    """Reading it waits for nothing."""

    data: bytes

    def __call__(self, size: int, offset: int) -> bytes:
        return self.data[offset : offset + size]


class Spool:
    """Grows at its end only; gone when nobody holds it any more."""

    def __init__(self) -> None:
        self.descriptor, name = tempfile.mkstemp(prefix="p2psched-")
        weakref.finalize(self, os.close, self.descriptor)
        os.unlink(name)  # noqa: PTH108 - the descriptor is all that is left, and enough
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Raises UsageError if there is no space."""
        view = memoryview(data).cast("B")
        try:
            while len(view):
                count = os.pwrite(self.descriptor, view, self.size)
                self.size += count
                view = view[count:]
        except OSError as error:
            raise UsageError(
                f"the job's arguments can't be kept in {tempfile.gettempdir()} "
                f"({error.strerror}): free some space, or set TMPDIR"
            ) from error


class Section:
    """A blob while it is written at the end of a spool. One at a time in each."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._offset = spool.size
        self._hasher = digests.Hasher()

    @property
    def size(self) -> int:
        return self._hasher.size

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        self._spool.write(view)
        self._hasher.update(view)
        return len(view)

    def finish(self) -> Upload:
        """Raises UsageError for what is too large."""
        ref, listed = _finish(self._hasher)
        return Upload(ref, listed, self._spool, self._offset)

    def give_up(self) -> None:
        """It is there already: the spool is as it was before."""
        self._spool.size = self._offset


def upload_of(parts: Iterable[Buffer], spool: Spool) -> Upload:
    section = Section(spool)
    for part in parts:
        section.write(part)
    return section.finish()


def upload_of_bytes(data: bytes) -> Upload:
    hasher = digests.Hasher()
    hasher.update(data)
    return Upload(*_finish(hasher), data)


def upload_of_file(path: Path) -> Upload:
    """Reads the file once. Raises UsageError if that isn't possible, or it is too large."""
    hasher = digests.Hasher()
    try:
        with path.open("rb") as file:
            while piece := file.read(READ_BYTES):
                hasher.update(piece)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    return Upload(*_finish(hasher), path)


def _finish(hasher: digests.Hasher) -> tuple[BlobRef, bytes]:
    digest = hasher.finish()
    try:
        return BlobRef(digest, hasher.size), b"".join(hasher.digests)
    except ValueError as error:
        raise UsageError(str(error)) from error

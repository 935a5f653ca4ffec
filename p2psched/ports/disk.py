"""Port `Disk`: the few things that durable stores do to a folder.

Names are plain file names inside one folder (`"log-00000001.seg"`). All calls block; loops call
them inline when the disk is quick, and in a thread when it is not. Failures are OSError.
"""

from __future__ import annotations

from typing import Protocol


class AppendFile(Protocol):
    """A file open for appending. After an error from `sync` it must not be used again."""

    @property
    def size(self) -> int:
        """Bytes in the file, synced or not."""
        ...

    def write(self, data: bytes) -> None:
        """Append all of `data` (short writes are continued). Not durable before `sync`."""
        ...

    def sync(self) -> None:
        """fdatasync: everything written before is durable when this returns."""
        ...

    def close(self) -> None: ...


class NewFile(Protocol):
    """A file that comes piece by piece, and its start last. After an error it must be closed."""

    def write(self, data: bytes) -> None:
        """Append all of `data`, behind the start. Not durable."""
        ...

    def finish(self, start: bytes) -> None:
        """Put the start in front, which is as long as was said; then all bytes are durable, and
        the file is closed. Its name is durable after `rename` only."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    def names(self) -> list[str]:
        """The files in the folder, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        ...

    def read_part(self, name: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on, fewer at the end. Raises FileNotFoundError."""
        ...

    def map(self, name: str) -> memoryview:
        """The bytes of a file that nobody changes, read from the disk as they are looked at; the
        file may be removed meanwhile. Raises FileNotFoundError."""
        ...

    def make(self, name: str, start_bytes: int) -> NewFile:
        """A new file, whose first `start_bytes` are known last; one of that name is emptied."""
        ...

    def open_append(self, name: str) -> AppendFile:
        """Open for appending at the end; a missing file is made, and is durable as an (empty)
        name in its folder when this returns."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write a whole file so that after a crash the old or the new one is there, never a mix:
        write aside, sync, rename, sync the folder. Durable on return."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file, whose bytes are synced, another name; one that has it goes. After a crash
        the old or the new state is there. Durable on return."""
        ...

    def truncate(self, name: str, size: int) -> None:
        """Cut a file to `size` bytes. Durable on return."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; no error if it is missing. Durable on return."""
        ...

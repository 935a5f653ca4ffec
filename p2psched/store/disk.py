"""The port `Disk` on a real folder, by system calls of the operating system.

For: every durable file of a peer. It refuses to hide a failure: an error of `sync` poisons the
file, because after a failed fsync the kernel may drop the pages and report success the next time
(a second fsync on the same descriptor proves nothing).

Invariants: a name is durable in its folder when the call that made, renamed or removed it returns;
files are private to their owner (0600, the folder 0700); descriptors are not inherited by children
(O_CLOEXEC, Python's own default too); interrupted calls are taken up again (PEP 475) and short
writes continued.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path
from typing import Final

_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_WRITE_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
# Files with this first character are our own half-made ones: never listed, overwritten when met.
_HIDDEN: Final = "."


class OsAppendFile:
    """A file that only grows. `OSError` from `sync` is final: close it and stop trusting it."""

    __slots__ = ("_fd", "_path", "_poison", "_size")

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._poison = ""

    @property
    def size(self) -> int:
        return self._size

    def write(self, data: bytes) -> None:
        self._check()
        written = os.write(self._fd, data)
        self._size += written
        if written == len(data):
            return
        rest = memoryview(data)[written:]
        while rest:
            written = os.write(self._fd, rest)
            self._size += written
            rest = rest[written:]

    def sync(self) -> None:
        self._check()
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._poison = f"its sync failed: {error}"
            raise

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _check(self) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the file is closed", str(self._path))
        if self._poison:
            raise OSError(
                errno.EIO, f"unusable, {self._poison}; stop, and open it again", str(self._path)
            )


class OsNewFile:
    """A file whose start comes last."""

    __slots__ = ("_fd", "_start_bytes")

    def __init__(self, path: Path, start_bytes: int) -> None:
        self._fd = os.open(path, _WRITE_NEW, _FILE_MODE)
        self._start_bytes = start_bytes
        os.lseek(self._fd, start_bytes, os.SEEK_SET)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def finish(self, start: bytes) -> None:
        assert len(start) == self._start_bytes
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.write(start)
        os.fdatasync(self._fd)
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class OsDisk:
    """A folder of plain files. The folder is made, durably, if it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _make_folder(folder)

    def names(self) -> list[str]:
        with os.scandir(self._folder) as found:
            return sorted(
                item.name for item in found if item.is_file() and not item.name.startswith(_HIDDEN)
            )

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def read_part(self, name: str, offset: int, size: int) -> bytes:
        with self._path(name).open("rb", buffering=0) as file:
            parts: list[bytes] = []
            while size and (part := os.pread(file.fileno(), size, offset)):
                parts.append(part)
                offset += len(part)
                size -= len(part)
            return b"".join(parts)

    def map(self, name: str) -> memoryview:
        with self._path(name).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")  # can't be mapped
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def make(self, name: str, start_bytes: int) -> OsNewFile:
        return OsNewFile(self._path(name), start_bytes)

    def open_append(self, name: str) -> OsAppendFile:
        path = self._path(name)
        fd = os.open(path, _APPEND | os.O_CREAT, _FILE_MODE)
        try:
            # Also for a file that was there: a process killed in this place may have left a name
            # that its folder does not hold durably yet.
            _sync_folder(self._folder)
            return OsAppendFile(path, fd)
        except BaseException:
            os.close(fd)
            raise

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        aside = self._folder / f"{_HIDDEN}{name}.new"
        try:
            _write_whole(aside, data)
            aside.replace(path)
        except OSError:
            # On a full disk the half-made file would hold the space that is missing.
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
        _sync_folder(self._folder)

    def rename(self, old: str, new: str) -> None:
        self._path(old).replace(self._path(new))
        _sync_folder(self._folder)

    def truncate(self, name: str, size: int) -> None:
        assert size >= 0
        fd = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)
        _sync_folder(self._folder)

    def _path(self, name: str) -> Path:
        # Names come from our own code. One with a slash would leave the folder.
        assert name[:1] not in {"", _HIDDEN}, name
        assert "/" not in name, name
        return self._folder / name


def _write_whole(path: Path, data: bytes) -> None:
    fd = os.open(path, _WRITE_NEW, _FILE_MODE)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, each name synced in its parent."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent)
    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    _sync_folder(folder.parent)

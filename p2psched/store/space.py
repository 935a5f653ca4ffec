"""Space on a peer's disk: what is left, and a file that only keeps some for bad times.

The ballast is given back to the filesystem when a write of the ledger finds no space, so that what
is under way can be finished: a vote, the step down, the entry that forgets a job. It is made again
once there is room for it and for what must be left. Best effort on filesystems that allocate
nothing for zeros (compression): there it is a file that frees nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model.limits import KIB, MIB

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
LEAST_BYTES: Final = 64 * MIB  # less than that free, and the peer takes nothing more
BALLAST_BYTES: Final = 16 * MIB
# Of a whole disk, where the defaults would be too much: half of that for the ballast.
_SMALL_DISK_SHARE: Final = 16
_LOG_BYTES_MIN: Final = 64 * KIB
_PIECE: Final = 256 * KIB


class NoRoom(OSError):
    """A write found no space, before any sync, and nothing of it is left: it may be repeated."""


def is_no_space(error: BaseException | None) -> bool:
    """True if a full disk is what it comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = error.__cause__
    return False


@contextmanager
def space_or_not() -> Iterator[None]:
    """A full disk must not keep a peer from reading what it has."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise


def no_room(error: OSError) -> NoRoom:
    return NoRoom(error.errno, error.strerror, error.filename)


class DiskSpace(msgspec.Struct, frozen=True):
    """Of the filesystem that a folder is on."""

    free_bytes: int
    total_bytes: int


def space_of(folder: Path) -> DiskSpace:
    """What a user without privileges may still write. Raises OSError."""
    found = os.statvfs(folder)
    return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def least_of(total_bytes: int) -> int:
    """How much must be left on a disk of that size, unless somebody says otherwise."""
    return min(LEAST_BYTES, total_bytes // _SMALL_DISK_SHARE)


def ballast_of(total_bytes: int) -> int:
    return min(BALLAST_BYTES, total_bytes // (2 * _SMALL_DISK_SHARE))


def log_bytes_of(total_bytes: int, wanted: int) -> int:
    """How much of a log may come before a snapshot stands for it. On a small disk less than is
    `wanted`: the log of two snapshots, and they themselves, have to fit."""
    return min(wanted, max(_LOG_BYTES_MIN, total_bytes // _SMALL_DISK_SHARE))


class Ballast:
    """The file `path` of `size` bytes; 0 for none. Calls block; `release` may come from any
    thread, the others from one."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size

    @property
    def is_there(self) -> bool:
        return self._path.exists()

    def make(self) -> bool:
        """False if there is no room for it: then none is there."""
        try:
            if self._path.lstat().st_size == self.size:
                return True
        except FileNotFoundError:
            pass
        if not self.size:
            self.release()
            return True
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        aside = self._path.with_name(f"{self._path.name}.new")
        try:
            descriptor = os.open(aside, flags, 0o600)
            try:
                _allocate(descriptor, self.size)
            finally:
                os.close(descriptor)
            aside.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            return False
        return True

    def release(self) -> bool:
        """True if that gave space back."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        for offset in range(0, size, _PIECE):
            os.pwrite(descriptor, bytes(min(_PIECE, size - offset)), offset)

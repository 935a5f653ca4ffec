"""The system calls under the blob store that its promises rest on; tests make them fail.

Not the port `Disk`: that is for small files which are read whole.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2psched.model.errors import NoSpace, Refused
from p2psched.store.files import sync_folder
from p2psched.store.space import NO_SPACE, space_of

log = logging.getLogger(__name__)

Bytes = bytes | bytearray | memoryview

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SPACE_RETRY_S: Final = 5.0


class FileCalls:
    """What changes files. An OSError of `sync` is final: the file is not to be trusted then."""

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        """The whole of `data`, however short the system's writes are."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            offset += written
            rest = rest[written:]

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def sync_folder(self, folder: Path) -> None:
        sync_folder(folder)


def make_folders(folder: Path) -> list[Path]:
    """All of a store, durable. Returns those for blobs. Raises Refused for what is no folder."""
    homes = [folder / f"{prefix:02x}" for prefix in range(256)]
    for made in (folder, folder / "incoming", folder / "damaged", *homes):
        with contextlib.suppress(FileExistsError):
            made.mkdir(mode=0o700)
        if not stat.S_ISDIR(made.lstat().st_mode):
            raise Refused(f"{made} is no folder: move it away, p2psched makes its own")
    sync_folder(folder)
    sync_folder(folder.parent)
    return homes


def restore_folders(folder: Path) -> None:
    """Whoever deletes them while we run loses blobs, and nothing that comes after."""
    if not (folder / "incoming").is_dir():
        log.error("blobs-folder-deleted", extra={"folder": str(folder)})
        make_folders(folder)


def open_plain(path: Path, flags: int = _READ, mode: int = 0o600) -> tuple[int, os.stat_result]:
    """A descriptor of a plain file, never through a link. Raises OSError, also for other kinds."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor, status


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes; fewer only at the end of the file."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def no_space(size: int, folder: Path) -> NoSpace:
    return NoSpace(
        f"no space: {size:,} more bytes are needed in {folder} of this peer: free some there",
        retry_after_s=_SPACE_RETRY_S,
    )


def check_space(folder: Path, needed: int) -> None:
    """Raises NoSpace unless that many bytes are free."""
    free = space_of(folder).free_bytes
    if needed > free:
        raise no_space(needed - free, folder)


@contextlib.contextmanager
def telling_space(size: int, folder: Path) -> Iterator[None]:
    """Turn a full disk into NoSpace; other errors of the disk pass."""
    try:
        yield
    except OSError as fault:
        if fault.errno in NO_SPACE:
            raise no_space(size, folder) from fault
        raise

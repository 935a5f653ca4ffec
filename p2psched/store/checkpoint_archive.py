"""A folder of checkpoints as bytes: plain files and folders below it, nothing else.

Of each its path, mode and time of change. Names at the top that begin with a dot, or end like files
that are being written, are left out: they are not there yet. Links and pipes are left out anywhere.
It unpacks into a folder that is new, and what would leave that one is refused.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, NamedTuple

from p2psched.model.digests import Hasher

PIECE: Final = 1024 * 1024
UNFINISHED: Final = (".tmp", ".part", ".partial", ".new", "~")
_ENTRY: Final = struct.Struct("<HIqQB")  # bytes of the path, mode, time, bytes, a folder or not
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Listed(NamedTuple):
    """One file or folder, and what changes with it."""

    path: str  # below the folder
    inode: int
    mode: int
    changed_ns: int
    size: int
    is_folder: bool


def is_whole(name: str) -> bool:
    """True if what has this name at the top of the folder counts."""
    return not name.startswith(".") and not name.endswith(UNFINISHED)


def listed(folder: Path) -> list[Listed]:
    """All that counts, folders before what is in them. Raises OSError."""
    found: list[Listed] = []
    _list(folder, "", found)
    return found


def _list(folder: Path, below: str, found: list[Listed]) -> None:
    with os.scandir(folder / below) as entries:
        here = sorted(entries, key=lambda entry: entry.name)
    for entry in here:
        if not below and not is_whole(entry.name):
            continue
        status = entry.stat(follow_symlinks=False)
        path = f"{below}{entry.name}"
        kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
        if kind == stat.S_IFDIR:
            found.append(Listed(path, status.st_ino, mode, status.st_mtime_ns, 0, is_folder=True))
            _list(folder, f"{path}/", found)
        elif kind == stat.S_IFREG:
            size, changed = status.st_size, status.st_mtime_ns
            found.append(Listed(path, status.st_ino, mode, changed, size, is_folder=False))


def pack(file: BinaryIO, hasher: Hasher, folder: Path, entries: list[Listed]) -> None:
    """Raises FileNotFoundError if one of them is another one by now, OSError."""

    def write(data: bytes) -> None:
        hasher.update(data)
        file.write(data)

    for entry in entries:
        name = os.fsencode(entry.path)
        head = len(name), entry.mode, entry.changed_ns, entry.size, entry.is_folder
        write(_ENTRY.pack(*head) + name)
        if not entry.is_folder:
            descriptor = os.open(folder / entry.path, _READ)
            with open(descriptor, "rb") as source:  # noqa: PTH123 - a descriptor
                left = entry.size
                while left and (piece := source.read(min(left, PIECE))):
                    write(piece)
                    left -= len(piece)
            if left:
                raise FileNotFoundError(entry.path)


def unpack(file: BinaryIO, size: int, folder: Path) -> None:
    """Into a new folder. Raises ValueError for what is no such archive, OSError."""
    left = size

    def read(count: int) -> bytes:
        nonlocal left
        data = file.read(count)
        if len(data) != count or count > left:
            raise ValueError("the archive is cut")
        left -= count
        return data

    made: list[tuple[Path, int, int]] = []
    while left:
        length, mode, changed_ns, bytes_left, is_folder = _ENTRY.unpack(read(_ENTRY.size))
        path = folder / _inside(os.fsdecode(read(length)))
        if is_folder:
            path.mkdir(mode=0o700)
            made.append((path, mode, changed_ns))
            continue
        with open(os.open(path, _NEW, 0o600), "wb") as target:  # noqa: PTH123 - a descriptor
            while bytes_left:
                piece = read(min(bytes_left, PIECE))
                target.write(piece)
                bytes_left -= len(piece)
            os.fchmod(target.fileno(), mode & 0o777)
        os.utime(path, ns=(changed_ns, changed_ns))
    for path, mode, changed_ns in reversed(made):
        path.chmod(mode & 0o777)
        os.utime(path, ns=(changed_ns, changed_ns))


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name!r} is no name inside a folder")
    return path

"""What a task writes, as files beside its folder: to be followed while it runs, and kept after.

A stream is a file with its first bytes, and beyond them a ring of its last ones, so that its disk
is bounded whatever it writes. Best effort: a full disk costs the view, never the task. What is
kept lies in a folder of its own, bounded in bytes and files, of each job too; the oldest go first.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Final

from ...model.limits import (  # noqa: TID252 - see shared.py
    OUTPUT_FILE_BYTES_MAX,
    OUTPUTS_BYTES_MAX,
    OUTPUTS_FILES_MAX,
    OUTPUTS_JOB_BYTES_MAX,
)

HEAD_BYTES: Final = OUTPUT_FILE_BYTES_MAX // 2
RING_BYTES: Final = OUTPUT_FILE_BYTES_MAX // 2
RING: Final = ".end"  # behind the name of a stream's file: the file of its ring
STREAMS: Final = ("stdout", "stderr")
# A folder of kept files is looked through after so many of them, or so many bytes.
LOOK_FILES: Final = 32
LOOK_BYTES: Final = 8 * 1024 * 1024

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PLACE: Final = struct.Struct("<QQ")  # of the ring: first byte of the stream that is there, end
_LOOKS_MAX: Final = 5  # at a ring that is written meanwhile


def kept_folder(folder: str) -> str:
    """Where a pool keeps outputs; its own folder is emptied at each start."""
    return f"{folder}-outputs"


class Spool:
    """One stream of one attempt. `path` is that of its file; nothing is there before a write."""

    __slots__ = ("_first", "_head", "_ring", "path", "written")

    def __init__(self) -> None:
        self.path = ""
        self.written = 0  # bytes; -1: it could not be written, and its files end there
        self._first = HEAD_BYTES  # of the stream's bytes in the ring
        self._head = self._ring = -1

    def open(self, path: str) -> None:
        self.path = path
        self.written = 0
        self._first = HEAD_BYTES

    def write(self, data: bytes | bytearray) -> None:
        if self.written < 0 or not self.path:
            return
        try:
            room = HEAD_BYTES - self.written
            if room > 0:
                if self._head < 0:
                    self._head = os.open(self.path, _NEW, 0o600)
                _write(self._head, data[:room], None)
                self.written += min(room, len(data))
                data = data[room:]
            if data:
                self._write_ring(data)
        except OSError:
            self._close()
            self.written = -1

    def _write_ring(self, data: bytes | bytearray) -> None:
        if self._ring < 0:
            self._ring = os.open(self.path + RING, _NEW, 0o600)
        end = self.written + len(data)
        first = max(self._first, end - RING_BYTES)
        if first > self._first:  # a reader must not take new bytes for old ones
            _write(self._ring, _PLACE.pack(first, max(first, self.written)), 0)
            self._first = first
        data = data[-RING_BYTES:]
        at = (end - len(data) - HEAD_BYTES) % RING_BYTES
        _write(self._ring, data[: RING_BYTES - at], _PLACE.size + at)
        if len(data) > RING_BYTES - at:
            _write(self._ring, data[RING_BYTES - at :], _PLACE.size)
        _write(self._ring, _PLACE.pack(first, end), 0)
        self.written = end

    def end(self, *, keep: bool) -> None:
        """It is over: its files go, or are kept."""
        if self._head < 0 and self.written >= 0:  # there are none
            return
        self._close()
        if keep:
            keep_files(self.path)
        else:
            remove(self.path)
        self.path = ""
        self.written = 0

    def _close(self) -> None:
        for descriptor in (self._head, self._ring):
            if descriptor >= 0:
                os.close(descriptor)
        self._head = self._ring = -1


def _write(descriptor: int, data: bytes | bytearray, at: int | None) -> None:
    """All of it. Raises OSError."""
    while data:
        if at is None:
            count = os.write(descriptor, data)
        else:
            count = os.pwrite(descriptor, data, at)
            at += count
        data = data[count:]


def read(path: str, offset: int, size: int) -> tuple[int, bytes, int] | None:
    """Where a piece of a stream starts (behind `offset` if what lies there is gone), the piece, and
    how much was written; None if there is no such file. Blocks."""
    try:
        head = os.open(path, _READ)
    except OSError:
        return None
    try:
        length = os.fstat(head).st_size
        if offset < length:
            data = os.pread(head, size, offset)
            return offset, data, max(length, _ring_end(path))
    except OSError:
        return offset, b"", offset
    finally:
        os.close(head)
    if length < HEAD_BYTES:
        return offset, b"", length
    return _read_ring(path + RING, offset, size)


def _ring_end(path: str) -> int:
    try:
        ring = os.open(path + RING, _READ)
    except OSError:
        return 0
    try:
        place = os.pread(ring, _PLACE.size, 0)
    finally:
        os.close(ring)
    return int(_PLACE.unpack(place)[1]) if len(place) == _PLACE.size else 0


def _read_ring(path: str, offset: int, size: int) -> tuple[int, bytes, int]:
    try:
        ring = os.open(path, _READ)
    except OSError:
        return offset, b"", HEAD_BYTES
    try:
        return _piece_of_ring(ring, offset, size)
    except (OSError, struct.error):
        return offset, b"", HEAD_BYTES
    finally:
        os.close(ring)


def _piece_of_ring(ring: int, offset: int, size: int) -> tuple[int, bytes, int]:
    """Raises OSError, or struct.error for a ring that says nothing yet."""
    end = HEAD_BYTES
    for _ in range(_LOOKS_MAX):
        first, end = _PLACE.unpack(os.pread(ring, _PLACE.size, 0))
        start = max(offset, first)
        at = (start - HEAD_BYTES) % RING_BYTES
        wanted = min(size, RING_BYTES - at, max(0, end - start))
        data = os.pread(ring, wanted, _PLACE.size + at)
        if _PLACE.unpack(os.pread(ring, _PLACE.size, 0))[0] <= start:
            return start, data, end
    return offset, b"", end


# --- files that are kept --------------------------------------------------------------------------


class _Kept:
    """Since this process has looked through the folder."""

    files = 0
    size = 0


def keep_files(path: str) -> None:
    """Move the files of a stream to where they stay for a while."""
    folder, _, name = path.rpartition("/")
    kept = f"{kept_folder(folder)}/{name}"
    for end in ("", RING):
        with contextlib.suppress(OSError):
            os.rename(path + end, kept + end)  # noqa: PTH104 - no pathlib in hosts
            _Kept.files += 1
            _Kept.size += os.lstat(kept + end).st_size
    if _Kept.files >= LOOK_FILES or _Kept.size >= LOOK_BYTES:
        prune(os.path.dirname(kept))  # noqa: PTH120


def remove(path: str) -> None:
    for end in ("", RING):
        with contextlib.suppress(OSError):
            os.unlink(path + end)  # noqa: PTH108


def prune(folder: str) -> tuple[int, int]:
    """Take the oldest streams away that are too many. How many there are then, and their bytes."""
    _Kept.files = _Kept.size = 0
    found = _streams(folder)
    room = _room(folder, sum(size for _, size, _ in found))
    count = size = 0
    of_jobs: dict[str, int] = {}
    for _, stream_bytes, name in sorted(found, reverse=True):  # newest first
        job = name.partition(".")[0]
        of_job = of_jobs.get(job, 0) + stream_bytes
        fits = size + stream_bytes <= room and of_job <= OUTPUTS_JOB_BYTES_MAX
        if fits and count < OUTPUTS_FILES_MAX:
            count, size = count + 1, size + stream_bytes
            of_jobs[job] = of_job
        else:
            remove(f"{folder}/{name}")
    return count, size


def _streams(folder: str) -> list[tuple[float, int, str]]:
    """When each was written last, its bytes, and its name."""
    found: dict[str, tuple[float, int]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                about = entry.stat(follow_symlinks=False)
                name = entry.name.removesuffix(RING)
                at, size = found.get(name, (0.0, 0))
                found[name] = (max(at, about.st_mtime), size + about.st_size)
    return [(at, size, name) for name, (at, size) in found.items()]


def _room(folder: str, size: int) -> int:
    """Bytes that may be kept: no more than a quarter of what would be free without them."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return min(OUTPUTS_BYTES_MAX, (disk.f_bavail * disk.f_frsize + size) // 4)

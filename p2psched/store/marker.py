"""The synced end of a log, in a small file beside its segments.

    magic 8s | format u16 | zeros 2 | segment u32 | offset u32 | checksum of the record that ends
    there u32 | index of the last entry there u64 | zeros 4 | checksum u32 over all before it

It tells a log that lost something from one whose last write never reached the disk: what is lost at
or before the mark is damage, what is lost behind it is a torn tail. It comes after the log, by the
time that its writer leaves between two marks, and never before it: everything up to the mark was
synced when the mark was written. The file is replaced as a whole, so no crash leaves a bad one.
"""

from __future__ import annotations

import enum
import struct
import threading
import zlib
from typing import Final

import msgspec

from p2psched.model.errors import Refused
from p2psched.ports.disk import Disk

MARKER: Final = "log.synced"
FORMAT: Final = 1

_MAGIC: Final = b"p2psync\n"
_BODY: Final = struct.Struct("<8sHxxIIIQ4x")
_CHECKSUM: Final = struct.Struct("<I")


class Mark(msgspec.Struct, frozen=True):
    """A place in the log behind which nothing is claimed."""

    segment: int  # its number
    offset: int  # in it, behind the last record that was synced
    checksum: int  # of that record, or of the segment's header
    index: int  # of the last entry of the log as of there

    @property
    def place(self) -> tuple[int, int]:
        return self.segment, self.offset


class MarkerState(enum.StrEnum):
    """What a log was found with."""

    SOUND = "sound"
    NONE = "none"  # an empty log, or one of an older version, which wrote none
    MISSING = "missing"  # the log says that there was one
    DAMAGED = "damaged"


def encode_mark(mark: Mark) -> bytes:
    body = _BODY.pack(_MAGIC, FORMAT, mark.segment, mark.offset, mark.checksum, mark.index)
    return body + _CHECKSUM.pack(zlib.crc32(body))


def decode_mark(data: bytes) -> Mark | None:
    """None if it is not as it was written. Raises Refused for a newer format."""
    if len(data) != _BODY.size + _CHECKSUM.size:
        return None
    body, (checksum,) = data[: _BODY.size], _CHECKSUM.unpack_from(data, _BODY.size)
    if zlib.crc32(body) != checksum:
        return None
    magic, version, segment, offset, of_record, index = _BODY.unpack(body)
    if magic != _MAGIC:
        return None
    if version != FORMAT:
        raise Refused(
            f"{MARKER} is of format {version}, and this program reads {FORMAT}. Nothing was "
            "changed. Start the newer p2psched that wrote it"
        )
    return Mark(segment=segment, offset=offset, checksum=of_record, index=index)


def read_mark(disk: Disk) -> tuple[Mark | None, MarkerState]:
    """The mark beside a log. Whether one that is not there ever was, the log must say."""
    if MARKER not in disk.names():
        return None, MarkerState.NONE
    mark = decode_mark(disk.read(MARKER))
    return mark, MarkerState.SOUND if mark is not None else MarkerState.DAMAGED


class MarkerFile:
    """Writes the marks of one log, in whatever thread; a mark never goes back."""

    def __init__(self, disk: Disk, written: Mark | None) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self.written = written  # the newest that is durable

    def write(self, mark: Mark) -> None:
        """Durable on return. Raises OSError, and then the one before stands."""
        with self._lock:
            if self.written is None or self.written.place < mark.place:
                self._disk.replace(MARKER, encode_mark(mark))
                self.written = mark

"""The synced end of a log, in a small file beside its segments.

    magic 8s | format u16 | bytes of the vote u16 | segment u32 | offset u32 | checksum of the
    record that ends there u32 | index of the last entry there u64 | term u64 | vote
    | checksum u32 over all before it

It tells a log that lost something from one whose last write never reached the disk: what is lost at
or before the mark is damage, what is lost behind it is a torn tail. It comes after the log, by the
time that its writer leaves between two marks, and never before it: everything up to the mark was
synced when the mark was written. The file is replaced as a whole, so no crash leaves a bad one.

It is also the second copy of term and vote, and of those it never lags: the new ones are durable
here before the log says them. Who finds the log damaged still knows what the peer has promised.
"""

from __future__ import annotations

import enum
import struct
import threading
import zlib
from typing import Final, NamedTuple

import msgspec

from p2psched.model.errors import Refused
from p2psched.model.ids import PeerId
from p2psched.model.raft import HardState
from p2psched.ports.disk import Disk

MARKER: Final = "log.synced"
FORMAT: Final = 1

_MAGIC: Final = b"p2psync\n"
_BODY: Final = struct.Struct("<8sHHIIIQQ")
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


def how_late(state: HardState) -> tuple[int, bool]:
    """A vote is given after its term is entered, and never changed in it."""
    return state.term, state.vote is not None


class MarkerState(enum.StrEnum):
    """What a log was found with."""

    SOUND = "sound"
    NONE = "none"  # an empty log, or one of an older version, which wrote none
    MISSING = "missing"  # the log says that there was one
    DAMAGED = "damaged"


class Marked(NamedTuple):
    """What the file says."""

    mark: Mark
    hard_state: HardState


def encode_marked(marked: Marked) -> bytes:
    mark, hard_state = marked
    vote = (hard_state.vote or "").encode()
    place = (mark.segment, mark.offset, mark.checksum, mark.index)
    body = _BODY.pack(_MAGIC, FORMAT, len(vote), *place, hard_state.term) + vote
    return body + _CHECKSUM.pack(zlib.crc32(body))


def decode_marked(data: bytes) -> Marked | None:
    """None if it is not as it was written. Raises Refused for a newer format."""
    end = len(data) - _CHECKSUM.size
    if end < _BODY.size or zlib.crc32(data[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
        return None
    magic, version, size, segment, offset, of_record, index, term = _BODY.unpack_from(data)
    if magic != _MAGIC:
        return None
    if version != FORMAT:
        raise Refused(
            f"{MARKER} is of format {version}, and this program reads {FORMAT}. Nothing was "
            "changed. Start the newer p2psched that wrote it"
        )
    vote = data[_BODY.size : end]
    if len(vote) != size:
        return None
    mark = Mark(segment=segment, offset=offset, checksum=of_record, index=index)
    return Marked(mark, HardState(term, PeerId(vote.decode()) if vote else None))


def read_marked(disk: Disk) -> tuple[Marked | None, MarkerState]:
    """What is told beside a log. Whether a marker that is not there ever was, the log must say."""
    if MARKER not in disk.names():
        return None, MarkerState.NONE
    marked = decode_marked(disk.read(MARKER))
    return marked, MarkerState.SOUND if marked is not None else MarkerState.DAMAGED


class MarkerFile:
    """Writes the marks of one log, in whatever thread; a mark never goes back."""

    def __init__(self, disk: Disk, written: Marked | None) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self._written = written
        self._promised = written.hard_state if written is not None else HardState()

    @property
    def mark(self) -> Mark | None:
        """The newest that is durable."""
        return self._written.mark if self._written is not None else None

    @property
    def promised(self) -> HardState:
        """Term and vote as they were noted last."""
        return self._promised

    def write(self, mark: Mark) -> None:
        """Move the mark. Durable on return. Raises OSError, and then what it said before stands."""
        with self._lock:
            known = self._written
            if known is None or known.mark.place < mark.place:
                self._replace(Marked(mark, self._promised))

    def promise(self, hard_state: HardState) -> None:
        """Note term and vote, before the log does. As `write`; without a file yet it is in the
        first one."""
        with self._lock:
            if self._written is not None and self._written.hard_state != hard_state:
                self._replace(Marked(self._written.mark, hard_state))
            self._promised = hard_state

    def _replace(self, marked: Marked) -> None:
        self._disk.replace(MARKER, encode_marked(marked))
        self._written = marked

"""Bytes of a log segment: how records look, and whether bytes are one. No files here.

A segment is a header of 64 bytes and then records, each on a multiple of 8. Numbers are
little-endian, padding is zero and under the checksum, checksums are CRC-32 (zlib).

    header   magic 8s | format u16 | header bytes u16 | number u32 | previous u32 | zeros 40
             | checksum u32 over all before it
    record   magic 4s | checksum u32 over all that follows, padding included, started from the
             header's checksum | payload bytes u32 | offset u32 | group u32 | previous u32
             | type u8 | kind u8 | zeros 6 | index u64 | term u64 | payload | zeros up to 8

`offset` is where the record lies itself, so bytes that moved are no record. `previous` is the
checksum of the record before (of the header for the first; of the last record of the segment
before for a header): records form one chain over all segments. `group` is the offset where the
record's group starts, and everything before that was synced when the record was written: a bad
record with a valid one of a later group behind it was durable once and has been damaged since.

Format 2 has two more types of records, and each of its segments begins with one of them, so that it
can be the first one of a log whose older segments are gone. The first segment of a log has number 1
and needs neither: it stays in format 1.

`kind` of a hard state is 1 if a file with the synced end (`store.marker`) stood beside the log by
then. Programs of before that file wrote 0, and pass over it.

The size, the place and the checksum of the header are the same in all formats to come, so that an
older program tells a newer format from damage. Records keep their layout within a format.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState

FORMAT: Final = 2
FORMAT_OF_FIRST: Final = 1
HEADER_BYTES: Final = 64
ALIGN: Final = 8
MARKED: Final = 1

_SEGMENT_MAGIC: Final = b"p2pslog\n"
_RECORD_MAGIC: Final = b"\xf2p2r"
_HEADER: Final = struct.Struct("<8sHHII40x")
_CHECKSUM: Final = struct.Struct("<I")
_PREFIX: Final = struct.Struct("<4sI")
_BODY: Final = struct.Struct("<IIIIBB6xQQ")  # what the checksum covers, without the payload
_RECORD: Final = struct.Struct("<4sIIIIIBB6xQQ")  # prefix and body, for reading
_ENTRY_BODY: Final = struct.Struct("<IIIIBB6xQQqq")  # with both stamps, which open the payload
_STAMPS: Final = struct.Struct("<qq")
_RECORD_BYTES: Final = _RECORD.size
_ZEROS: Final = tuple(bytes(count) for count in range(ALIGN))


class RecordType(enum.IntEnum):
    ENTRY = 1  # index, term, kind; payload: stamp_ms i64, wall_ms i64, the entry's payload
    HARD_STATE = 2  # term; payload: the vote, empty for none
    TRUNCATE = 3  # index: this entry and all behind it are void
    START = 4  # index: of the last entry before this segment
    RESET = 5  # index, term: all before is void, a snapshot stands for it; the next entry follows


class HeaderFault(enum.Enum):
    """Why 64 bytes are no header that we can go on from."""

    BAD = enum.auto()
    NEWER_FORMAT = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    number: int
    previous: int
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record whose checksum, offset and length hold. What it says is not judged yet."""

    checksum: int
    previous: int
    group: int
    type: int
    kind: int
    index: int
    term: int
    payload: bytes
    end: int  # where the next record starts


def segment_name(number: int) -> str:
    return f"log-{number:08d}.seg"


def encode_header(number: int, previous: int) -> bytes:
    version = FORMAT if number > 1 else FORMAT_OF_FIRST
    head = _HEADER.pack(_SEGMENT_MAGIC, version, HEADER_BYTES, number, previous)
    return head + _CHECKSUM.pack(zlib.crc32(head))


def decode_header(data: bytes) -> Header | HeaderFault:
    if len(data) < HEADER_BYTES:
        return HeaderFault.BAD
    checksum: int = _CHECKSUM.unpack_from(data, HEADER_BYTES - _CHECKSUM.size)[0]
    if zlib.crc32(data[: HEADER_BYTES - _CHECKSUM.size]) != checksum:
        return HeaderFault.BAD
    magic, version, size, number, previous = _HEADER.unpack_from(data)
    if magic != _SEGMENT_MAGIC:
        return HeaderFault.BAD
    if not FORMAT_OF_FIRST <= version <= FORMAT:
        return HeaderFault.NEWER_FORMAT if version > FORMAT else HeaderFault.BAD
    if size != HEADER_BYTES:
        return HeaderFault.BAD
    return Header(number=number, previous=previous, checksum=checksum)


def decode_record(data: memoryview, at: int, seed: int) -> Record | None:
    """The record at `at`, or None if the bytes there are none. `seed`: the header's checksum."""
    if at + _RECORD_BYTES > len(data):
        return None
    magic, checksum, length, offset, group, previous, kind_of, kind, index, term = (
        _RECORD.unpack_from(data, at)
    )
    end = at + _RECORD_BYTES + length
    padded_end = end + -length % ALIGN
    if magic != _RECORD_MAGIC or offset != at or padded_end > len(data):
        return None
    if zlib.crc32(data[at + _PREFIX.size : padded_end], seed) != checksum:
        return None
    return Record(
        checksum=checksum,
        previous=previous,
        group=group,
        type=kind_of,
        kind=kind,
        index=index,
        term=term,
        payload=bytes(data[at + _RECORD_BYTES : end]),
        end=padded_end,
    )


def find_later_group(data: bytes, bad: int, seed: int) -> int | None:
    """Offset of a valid record behind `bad` whose group starts behind it too, or None."""
    view = memoryview(data)
    at = data.find(_RECORD_MAGIC, bad + 1)
    while at >= 0:
        if at % ALIGN == 0:
            record = decode_record(view, at, seed)
            if record is not None and record.group > bad:
                return at
        at = data.find(_RECORD_MAGIC, at + 1)
    return None


def decode_entry(record: Record) -> Entry:
    """Raises ValueError if the payload is too short or the kind is unknown."""
    if len(record.payload) < _STAMPS.size:
        raise ValueError(f"entry {record.index} is too short")
    stamp_ms, wall_ms = _STAMPS.unpack_from(record.payload)
    return Entry(
        index=record.index,
        term=record.term,
        kind=EntryKind(record.kind),
        stamp_ms=stamp_ms,
        wall_ms=wall_ms,
        payload=record.payload[_STAMPS.size :],
    )


def decode_hard_state(record: Record) -> HardState:
    """Raises ValueError if the vote is no text."""
    vote = record.payload.decode("utf-8")
    return HardState(term=record.term, vote=PeerId(vote) if vote else None)


class GroupEncoder:
    """Appends records to a buffer, in chain order. Throw it away if the write fails."""

    __slots__ = ("_group", "_offset", "_parts", "_seed", "previous")

    def __init__(self, *, offset: int, group: int, previous: int, seed: int) -> None:
        self._offset = offset
        self._group = group
        self._seed = seed
        self._parts: list[bytes] = []
        self.previous = previous  # checksum of the last record so far

    def hard_state(self, state: HardState, *, marked: bool = False) -> None:
        """`marked`: say that there is a marker."""
        vote = (state.vote or "").encode()
        self._record(RecordType.HARD_STATE, 0, state.term, vote, MARKED if marked else 0)

    def truncate(self, index: int) -> None:
        self._record(RecordType.TRUNCATE, index, 0, b"")

    def start(self, index: int) -> None:
        self._record(RecordType.START, index, 0, b"")

    def reset(self, index: int, term: int) -> None:
        self._record(RecordType.RESET, index, term, b"")

    def entries(self, entries: Sequence[Entry]) -> None:
        # The hot loop of the log: one pack, two checksums and no object a record.
        parts, seed, group = self._parts, self._seed, self._group
        offset, previous = self._offset, self.previous
        pack, crc32, fixed = _ENTRY_BODY.pack, zlib.crc32, _PREFIX.size + _ENTRY_BODY.size
        kind_of = int(RecordType.ENTRY)
        for entry in entries:
            payload = entry.payload
            size = len(payload)
            body = pack(
                size + _STAMPS.size,
                offset,
                group,
                previous,
                kind_of,
                entry.kind,
                entry.index,
                entry.term,
                entry.stamp_ms,
                entry.wall_ms,
            )
            pad = -size % ALIGN
            tail = payload + _ZEROS[pad] if pad else payload
            previous = crc32(tail, crc32(body, seed))
            parts += (_PREFIX.pack(_RECORD_MAGIC, previous), body, tail)
            offset += fixed + size + pad
        self._offset, self.previous = offset, previous

    def data(self) -> bytes:
        return b"".join(self._parts)

    def _record(
        self, kind_of: RecordType, index: int, term: int, payload: bytes, kind: int = 0
    ) -> None:
        body = _BODY.pack(
            len(payload), self._offset, self._group, self.previous, kind_of, kind, index, term
        )
        tail = payload + _ZEROS[-len(payload) % ALIGN]
        self.previous = zlib.crc32(tail, zlib.crc32(body, self._seed))
        self._parts += (_PREFIX.pack(_RECORD_MAGIC, self.previous), body, tail)
        self._offset += _PREFIX.size + len(body) + len(tail)

"""Reads the log of a running peer from behind: entries that memory has let go of.

For: `peer.replay`, in a thread of its own, beside the thread that appends. It holds one segment in
memory at a time. Segments may be removed meanwhile, by a compaction: then FileNotFoundError is
raised, and whoever asks begins anew. Invariant: an entry is given only if the log, as it stood when
it was looked through, goes on from there to an entry that is known to be committed: so what a later
record made void is passed over, and nothing is told that others may not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from p2psched.model.errors import Unavailable
from p2psched.model.raft import Entry
from p2psched.ports.disk import Disk
from p2psched.store.recovery import segment_numbers
from p2psched.store.segments import (
    HEADER_BYTES,
    Header,
    Record,
    RecordType,
    decode_entry,
    decode_header,
    decode_record,
    segment_name,
)

_FIRST: Final = 1  # segment of a log that lacks nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the segments hold."""

    first: int  # the oldest entry
    segments: tuple[int, ...]
    voids: tuple[tuple[int, int, int], ...]  # segment, offset, entry: it and those behind are void
    upto: int  # the last entry that counts


def scan(disk: Disk, *, upto: int, term: int) -> Scan:
    """Look through the log up to an entry that is committed. Raises Unavailable if it is not on the
    disk yet, FileNotFoundError."""
    first = upto + 1
    segments: list[int] = []
    voids: list[tuple[int, int, int]] = []
    found: int | None = None  # the term of the entry `upto`
    for number in segment_numbers(disk):
        if not segments:
            first = 1 if number == _FIRST else upto + 1
        segments.append(number)
        is_first = len(segments) == 1
        for at, record in _records(disk, number):
            if record.type == RecordType.RESET:
                segments, voids, found, first = [number], [(number, at, 0)], None, record.index + 1
            elif record.type == RecordType.START and is_first:
                first = record.index + 1
            elif record.type == RecordType.TRUNCATE:
                voids.append((number, at, record.index))
                found = None if record.index <= upto else found
            elif record.type == RecordType.ENTRY and record.index == upto:
                found = record.term
    if upto >= first and found != term:
        raise Unavailable("this peer's disk is behind: ask again", retry_after_s=0.2)
    return Scan(first=first, segments=tuple(segments), voids=tuple(voids), upto=upto)


def entries(disk: Disk, seen: Scan, *, first: int) -> Iterator[Entry]:
    """Those from `first` on, up to the last that counts. Raises Unavailable if one can't be read,
    FileNotFoundError."""
    following = first
    for number in seen.segments:
        for at, record in _records(disk, number):
            if following > seen.upto:
                return
            if record.type != RecordType.ENTRY or record.index != following:
                continue
            if any((number, at) < (n, o) and record.index >= void for n, o, void in seen.voids):
                continue
            yield decode_entry(record)
            following += 1
    if following <= seen.upto:
        raise Unavailable(f"entry {following} can't be read from this peer's disk: ask another")


def _records(disk: Disk, number: int) -> Iterator[tuple[int, Record]]:
    """Up to the first one that is not whole: it may just be written."""
    data = disk.read(segment_name(number))
    header = decode_header(data)
    if not isinstance(header, Header):
        return
    view, at = memoryview(data), HEADER_BYTES
    while (record := decode_record(view, at, header.checksum)) is not None:
        yield at, record
        at = record.end

"""What a row of the result store holds, with its checksum: pure, no database here.

Invariants:
- Every row carries a CRC-32 over all its columns and the id of its job (not only the number by
  which the file knows it), so a row that was reached by a wrong number fits no checksum.
- A row of history holds whole commands: all that one command did to a job is in one row.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from p2psched.model import chunks, errors
from p2psched.model.aside import Aside
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    Event,
    JobAdded,
    PeerCameUp,
    PeerDrains,
    PeerWentDown,
    Recorded,
    Retried,
    Stamped,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.taskset import TaskSet

# From so many on the next command begins another row. A page of history reads whole rows, and four
# KiB of them fill a page of the file well.
HISTORY_ROW_EVENTS: Final = 32
VOID: Final = -1  # the start of a segment all of whose tasks were run again
# Columns of a segment's row, after the number of its job. Functions below rely on the order.
SEGMENT_COLUMNS: Final = 'position, start, stop, cause, busy_us, "grant", peer, crc, data, blobs'

OF_PEERS: Final = (PeerCameUp, PeerWentDown, PeerDrains, Aside)  # events that are of no job

Row = tuple[object, ...]

_encode: Final = msgspec.msgpack.Encoder().encode
_events: Final = msgspec.msgpack.Decoder(list[Stamped]).decode
_spec: Final = msgspec.msgpack.Decoder(JobSpec).decode
_blobs: Final = msgspec.msgpack.Decoder(tuple[ResultBlob, ...]).decode


class Mismatch(Exception):
    """A row and its checksum don't fit; the text says which."""


class Pending:
    """What one transaction has to write; `segments` may be written before its end."""

    __slots__ = ("forgotten", "histories", "jobs", "peers", "segments")

    def __init__(self) -> None:
        self.jobs: list[Row] = []
        self.segments: list[Row] = []
        self.histories: dict[JobId, list[Stamped]] = {}
        self.peers: list[Stamped] = []
        self.forgotten: list[tuple[int]] = []


# --- segments -------------------------------------------------------------------------------------


def segment_row(number: int, event: Recorded) -> Row:
    segment = event.segment
    blobs = _encode(segment.blobs) if segment.blobs else b""
    position, start, stop, data = event.position, segment.start, segment.stop, segment.data
    cause, busy_us, grant, peer = segment.cause.value, segment.busy_us, event.grant, event.peer
    crc = _crc((event.job, position, start, stop, cause, busy_us, grant, peer, data, blobs))
    return number, position, start, stop, cause, busy_us, grant, peer, crc, data, blobs


def void_row(number: int, job: JobId, position: int) -> Row:
    head = (position, VOID, VOID, "void", 0, 0, "")
    return (number, *head, _crc((job, *head, b"", b"")), b"", b"")


def is_void(job: JobId, row: Row) -> bool:
    """True for an empty position; a row that damage made look like one is no such row."""
    if row[1] != VOID:
        return False
    _check(job, row)
    return True


def recorded_of(job: JobId, row: Row) -> Recorded:
    """Raises Mismatch."""
    _check(job, row)
    return decode_segment(job, row)


def decode_segment(job: JobId, row: Row) -> Recorded:
    """Of a row whose checksum was verified, and which is no empty position."""
    position, start, stop, cause, busy_us, grant, peer, _, data, blobs = row
    assert isinstance(position, int)
    assert isinstance(start, int)
    assert isinstance(stop, int)
    assert isinstance(busy_us, int)
    assert isinstance(grant, int)
    assert isinstance(data, bytes)
    assert isinstance(blobs, bytes)
    held = _blobs(blobs) if blobs else ()
    segment = Segment(start, stop, Cause(str(cause)), data, busy_us, held)
    return Recorded(job, grant, PeerId(str(peer)), position, segment)


def _check(job: JobId, row: Row) -> None:
    *head, crc, data, blobs = row
    if crc != _crc((job, *head, data, blobs)):
        raise Mismatch(f"segment {head[0]} of job {job} fails its checksum")


# --- history --------------------------------------------------------------------------------------


def history_rows(number: int, job: JobId, events: Iterable[Stamped]) -> Iterator[Row]:
    """Of one job, oldest first. A row is found by its last command."""
    piece: list[Stamped] = []
    for stamped in events:
        if len(piece) >= HISTORY_ROW_EVENTS and stamped.index != piece[-1].index:
            yield history_row(number, job, piece)
            piece = []
        piece.append(stamped)
    if piece:
        yield history_row(number, job, piece)


def history_row(number: int, job: JobId, events: Sequence[Stamped], place: int = 0) -> Row:
    """`place`: among rows of the same command; only the history of peers has any."""
    last = events[-1].index
    data = _encode([_kept(stamped) for stamped in events])
    return number, last, place, _crc((job, last, place, data)), data


def events_of(job: JobId, row: Row) -> list[Stamped]:
    """Of `last, place, crc, events`. Raises Mismatch."""
    last, place, crc, data = row
    if crc != _crc((job, last, place, data)):
        raise Mismatch(f"history of job {job} fails its checksum at {last}")
    assert isinstance(data, bytes)
    return _events(data)


def _kept(stamped: Stamped) -> object:
    """What has the bytes of the event as history keeps it: of a struct, and of its tuple, equal."""
    event = stamped.event
    kept = event_without_data(event)
    return stamped if kept is event else (stamped.index, stamped.at_ms, stamped.wall_ms, kept)


def event_without_data(event: Event) -> Event:
    """The event as history keeps it: of results only range, cause and time, of jobs no spec."""
    if isinstance(event, (Recorded, Retried)) and event.segment.data:
        return msgspec.structs.replace(event, segment=without_data(event.segment))
    if isinstance(event, JobAdded) and event.spec is not None:
        return JobAdded(event.job)
    return event


def history_key(event: Event) -> JobId:
    """The job in whose history an event stands; empty for what happens to peers."""
    return JobId("") if isinstance(event, OF_PEERS) else event.job


# --- jobs -----------------------------------------------------------------------------------------


def job_row(number: int, job: JobId, spec: JobSpec | None) -> Row:
    """Without a spec: it is not known here."""
    data = b"" if spec is None else _encode(spec)
    return number, job, _crc((number, job, data)), data


def spec_of(number: int, job: JobId, row: Row) -> JobSpec | None:
    """Of `crc, spec`. Raises Mismatch."""
    crc, data = row
    if crc != _crc((number, job, data)):
        raise Mismatch(f"the spec of job {job} fails its checksum")
    assert isinstance(data, bytes)
    return _spec(data) if data else None


# --- segments without some of what they hold ------------------------------------------------------


def without_data(segment: Segment) -> Segment:
    """The same segment, its data left empty."""
    return msgspec.structs.replace(segment, data=b"")


def parts_without(segment: Segment, tasks: TaskSet) -> list[Segment]:
    """What is left of a segment without some of its tasks."""
    left = segment.tasks - tasks
    if segment.data:
        return segment.parts(left)
    size = segment.stop - segment.start
    return [
        msgspec.structs.replace(
            segment,
            start=start,
            stop=stop,
            busy_us=segment.busy_us * (stop - start) // size,
            blobs=tuple(blob for blob in segment.blobs if start <= blob.index < stop),
        )
        for start, stop in left.ranges
    ]


def item_of(segment: Segment, job: JobId, index: int) -> bytes:
    """The item of one task in its segment; empty if the segment came without data."""
    if not segment.data:
        return b""
    place = index - segment.start
    try:
        return chunks.unpack(chunks.cut(segment.data, place, place + 1))[0]
    except ValueError as fault:
        raise errors.ProtocolError(
            f"the result of task {index} of job {job} was committed in a form that can't be read "
            f"({fault}): report it with the version of the peer that ran the task"
        ) from fault


def _crc(columns: Row) -> int:
    """A damaged row may hold other types: they are other bytes."""
    return zlib.crc32(_encode(columns))

"""Adapter of port `Results` over SQLite: committed results and history of this peer, for reading.

It refuses to be a truth of its own: the ledger is, and everything here comes back by applying it
again from `applied_index`. So a file that can't be trusted is set aside and started empty, never
repaired, and the database is allowed to lose its last commits with the power (WAL, synchronous =
NORMAL), because then the applied index is lost with them.

Invariants:
- One `store` is one transaction: its events and its applied index, both or neither.
- Every row carries a CRC-32 over all its columns, verified by every read.
- Each position of a job has a row: that of its segment, of the parts that are left of it after
  tasks were run again, or an empty one.
- One process at a time (the lock of the data folder), one thread at a time (the port's rule). The
  exclusive mode of SQLite says the same, and needs no shared memory beside the file.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model import chunks, errors
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    Event,
    JobAdded,
    JobForgotten,
    JobReopened,
    PeerCameUp,
    PeerWentDown,
    Recorded,
    Retried,
    Stamped,
)
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.results import Page
from p2psched.store.results_file import (
    Unsound,
    environment_error,
    give_back,
    is_environment,
    mark,
    open_database,
    set_aside,
)

# What a segment costs besides its data: pages of segments without data are bounded by it too.
SEGMENT_OVERHEAD_BYTES: Final = 32
PEER_EVENTS_MAX: Final = 10_000  # in the history of peers, which no job's end takes away
PRUNE_EVERY: Final = 256  # stores
_VOID: Final = -1  # the start of a segment all of whose tasks were run again

_SELECT: Final = (
    'SELECT position, start, stop, cause, busy_us, "grant", peer, crc, data, blobs, rowid'
    " FROM segment WHERE job = ?"
)
_SEGMENTS: Final = _SELECT + " AND position >= ? ORDER BY position, start"
# Final results of a job never overlap (what is run again is cut out), so the last start at or
# before an index decides.
_ITEM: Final = _SELECT + " AND start <= ? ORDER BY start DESC LIMIT 1"
# For the same reason no segment before the last one that starts at or before them is looked at.
_LAST_BEFORE: Final = "(SELECT max(start) FROM segment WHERE job = ? AND start <= ?)"
_OVERLAPPING: Final = (
    _SELECT + f" AND start < ? AND stop > ? AND start >= max(0, coalesce({_LAST_BEFORE}, 0))"
)
_PRUNE: Final = (
    "DELETE FROM history WHERE job = '' AND id <= (SELECT id FROM history"
    " WHERE job = '' ORDER BY id DESC LIMIT 1 OFFSET ?)"
)
INSERT: Final = "INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_HISTORY: Final = (
    "SELECT idx, at_ms, wall_ms, crc, event FROM history WHERE job = ? AND idx > ? ORDER BY idx, id"
)


class SqliteResults:
    """`path` is made if it is missing. What is no sound database of this version is moved to
    `<stem>.damaged-N` beside it. Raises Refused if the file can't be opened or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Event)
        self._specs = msgspec.msgpack.Decoder(JobSpec)
        self._blobs = msgspec.msgpack.Decoder(tuple[ResultBlob, ...])
        self._stores = 0
        try:
            try:
                self._db = open_database(path)
            except Unsound as fault:
                set_aside(path, str(fault))
                self._db = open_database(path)
            self._applied_index: int = self._db.execute("SELECT entry FROM applied").fetchone()[0]
        except (Unsound, sqlite3.Error, OSError) as fault:
            raise errors.Refused(
                f"can't open the results {path}: {fault}: check permissions and free space there"
            ) from fault

    @property
    def applied_index(self) -> int:
        """Entry index up to which everything is stored; 0 for an empty store."""
        return self._applied_index

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        """Keep `events` and `applied_index`, both or neither. Raises Unavailable if the disk takes
        no more (the same call may be repeated) and Damaged if the file is broken."""
        assert applied_index > self._applied_index, "an entry was handed over twice"
        with self._faults("store results"), self._transaction():
            done = 0
            for number, stamped in enumerate(events):
                if isinstance(stamped.event, JobReopened | JobForgotten):  # rare: the rest is fast
                    self._insert(events[done : number + 1])
                    self._change(stamped.event)
                    done = number + 1
            self._insert(events[done:] if done else events)
            self._prune()
            self._db.execute("UPDATE applied SET entry = ?", (applied_index,))
        self._applied_index = applied_index
        with self._faults("give space back"):
            give_back(self._db)

    def _insert(self, events: Sequence[Stamped]) -> None:
        self._db.executemany(
            INSERT, (self._segment_row(e.event) for e in events if isinstance(e.event, Recorded))
        )
        self._insert_history(events)
        for event in (e.event for e in events):
            if isinstance(event, JobAdded) and event.spec is not None:
                self._put_spec(event.job, event.spec)

    def _insert_history(self, events: Sequence[Stamped]) -> None:
        self._db.executemany(
            "INSERT INTO history (idx, job, at_ms, wall_ms, kind, crc, event)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            map(self._history_row, events),
        )

    def _put_spec(self, job: JobId, spec: JobSpec) -> None:
        data = self._encoder.encode(spec)
        row = (job, _crc((job,), data), data)
        self._db.execute("INSERT OR REPLACE INTO spec VALUES (?, ?, ?)", row)

    def _change(self, event: JobReopened | JobForgotten) -> None:
        if isinstance(event, JobForgotten):
            self._forget(event.job)
            return
        for start, stop in event.tasks.ranges:
            values = (event.job, stop, start, event.job, start)
            for row in self._db.execute(_OVERLAPPING, values).fetchall():
                self._cut(event, row)

    def _forget(self, job: JobId) -> None:
        for table in ("segment", "history", "spec", "lacking"):
            self._db.execute(f"DELETE FROM {table} WHERE job = ?", (job,))  # noqa: S608

    def _cut(self, event: JobReopened, row: tuple[object, ...]) -> None:
        """Take tasks out of a stored segment; what is left stays at its position."""
        segment = self._verified(event.job, row)
        position, grant, peer = row[0], row[5], row[6]
        self._db.execute("DELETE FROM segment WHERE rowid = ?", (row[-1],))
        parts = parts_without(segment, event.tasks)
        for part in parts:
            self._db.execute(INSERT, self._row(event.job, position, part, grant, peer))
        if not parts:
            left = self._db.execute(
                "SELECT 1 FROM segment WHERE job = ? AND position = ?", (event.job, position)
            ).fetchone()
            if left is None:
                self._db.execute(INSERT, self._void_row(event.job, position))

    def _prune(self) -> None:
        """The history of peers has no end of its own."""
        self._stores += 1
        if self._stores % PRUNE_EVERY == 0:
            self._db.execute(_PRUNE, (PEER_EVENTS_MAX,))

    def segments(self, job: JobId, position: int, bytes_max: int) -> Page:
        """Final results in commit order from `position` on: at least one if there is one, then as
        many as fit `bytes_max` (each counts SEGMENT_OVERHEAD_BYTES more than its data)."""
        page = Page(position)
        size = 0
        with self._faults("read results"), self._rows(_SEGMENTS, job, position) as rows:
            for row in rows:
                if row[0] not in (page.next_position, page.next_position - 1):
                    raise self._damaged(f"segment {page.next_position} of job {job} is missing")
                if self._is_void(job, row):
                    page.next_position = row[0] + 1
                    continue
                segment = self._verified(job, row)
                size += len(segment.data) + SEGMENT_OVERHEAD_BYTES
                if page.segments and size > bytes_max and row[0] == page.next_position:
                    break  # never between the parts of one position
                page.add(row[0], segment)
        return page

    def spec(self, job: JobId) -> JobSpec | None:
        """What a job was submitted as."""
        with self._faults("read a job's spec"):
            row = self._db.execute("SELECT crc, data FROM spec WHERE job = ?", (job,)).fetchone()
            if row is None:
                return None
            if row[0] != _crc((job,), row[1]):
                raise self._damaged(f"the spec of job {job} fails its checksum")
        return self._specs.decode(row[1])

    def item(self, job: JobId, index: int) -> tuple[Segment, bytes] | None:
        """The final item of one task with its segment (data left empty), or None. Reads the whole
        segment, for its checksum. Raises ProtocolError if its owner committed what is no chunk."""
        with self._faults("read results"), self._rows(_ITEM, job, index) as rows:
            row = rows.fetchone()
            if row is None or self._is_void(job, row):
                return None
            segment = self._verified(job, row)
        if not segment.start <= index < segment.stop:
            return None
        return without_data(segment), item_of(segment, job, index)

    def history(self, job: JobId, after: int, limit: int) -> list[Stamped]:
        """Events of a job (of peers if it is empty) with a command index above `after`, oldest
        first. `limit` may be exceeded by the rest of the last command's events: a page never ends
        inside a command, so `after` can always be the index that the page before ended with."""
        found: list[Stamped] = []
        with self._faults("read history"), self._rows(_HISTORY, job, after) as rows:
            for index, at_ms, wall_ms, crc, data in rows:
                if len(found) >= limit and found[-1:] and index != found[-1].index:
                    break
                if crc != _crc((index, job, at_ms, wall_ms), data):
                    raise self._damaged(f"history of job {job} fails its checksum at {index}")
                found.append(Stamped(index, at_ms, wall_ms, self._decoder.decode(data)))
        return found

    def checkpoint(self, applied_index: int) -> None:
        """Everything is durable on return, which a commit alone does not promise here."""
        with self._faults("make results durable"):
            if applied_index > self._applied_index:
                with self._transaction():
                    self._db.execute("UPDATE applied SET entry = ?", (applied_index,))
                self._applied_index = applied_index
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise errors.Unavailable(f"{self._path} is being read by another program: end it")

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def _rows(self, sql: str, *values: object) -> contextlib.closing[sqlite3.Cursor]:
        """One row at a time, so that memory is bounded by what the reader keeps."""
        return contextlib.closing(self._db.execute(sql, values))

    def _history_row(self, stamped: Stamped) -> tuple[object, ...]:
        event = event_without_data(stamped.event)
        job = history_key(event)
        data = self._encoder.encode(event)
        crc = _crc((stamped.index, job, stamped.at_ms, stamped.wall_ms), data)
        kind = type(event).__name__  # only for people who open the file
        return stamped.index, job, stamped.at_ms, stamped.wall_ms, kind, crc, data

    def _is_void(self, job: JobId, row: tuple[object, ...]) -> bool:
        """True for an empty position; a row that damage made look like one is no such row."""
        if row[1] != _VOID:
            return False
        self._check(job, row)
        return True

    def _check(self, job: JobId, row: tuple[object, ...]) -> None:
        *head, crc, data, blobs, _ = row
        if crc != _crc((job, *head), data, blobs):
            raise self._damaged(f"segment {head[0]} of job {job} fails its checksum")

    def _verified(self, job: JobId, row: tuple[object, ...]) -> Segment:
        self._check(job, row)
        *head, _, data, blobs, _ = row
        _, start, stop, cause, busy_us, *_ = head
        assert isinstance(start, int)
        assert isinstance(stop, int)
        assert isinstance(busy_us, int)
        assert isinstance(data, bytes)
        assert isinstance(blobs, bytes)
        held = self._blobs.decode(blobs) if blobs else ()
        return Segment(start, stop, Cause(str(cause)), data, busy_us, held)

    def _segment_row(self, event: Recorded) -> tuple[object, ...]:
        return self._row(event.job, event.position, event.segment, event.grant, event.peer)

    def _row(
        self, job: JobId, position: object, segment: Segment, grant: object, peer: object
    ) -> tuple[object, ...]:
        head = (
            *(job, position, segment.start, segment.stop, segment.cause.value),
            *(segment.busy_us, grant, peer),
        )
        blobs = self._encoder.encode(segment.blobs) if segment.blobs else b""
        return (*head, _crc(head, segment.data, blobs), segment.data, blobs)

    def _void_row(self, job: JobId, position: object) -> tuple[object, ...]:
        head = (job, position, _VOID, _VOID, "void", 0, 0, "")
        return (*head, _crc(head, b"", b""), b"", b"")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        """Turn SQLite's errors into ours: is the file broken, or does the disk take no more?"""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a call after `close`, for one: our fault, not the file's
        except sqlite3.DatabaseError as fault:
            if is_environment(fault):
                raise environment_error(doing, self._path, fault) from fault
            raise self._damaged(str(fault)) from fault

    def _damaged(self, what: str) -> errors.Damaged:
        """Leaves a mark, so that the next start doesn't trust the file either."""
        with contextlib.suppress(OSError):
            mark(self._path).touch(mode=0o600)
        return errors.Damaged(
            f"{what} ({self._path}): restart this peer; it sets the file aside then and builds it "
            "again from the ledger"
        )


def history_key(event: Event) -> JobId:
    """The job in whose history an event stands; empty for what happens to peers."""
    return JobId("") if isinstance(event, PeerCameUp | PeerWentDown) else event.job


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


def event_without_data(event: Event) -> Event:
    """The event as history keeps it: of results only range, cause and time, of jobs no spec."""
    if isinstance(event, Recorded | Retried) and event.segment.data:
        return msgspec.structs.replace(event, segment=without_data(event.segment))
    if isinstance(event, JobAdded) and event.spec is not None:
        return JobAdded(event.job)
    return event


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


def _crc(head: tuple[object, ...], *parts: object) -> int:
    """Over all columns of a row. A damaged row may hold any type: then no checksum fits."""
    crc = zlib.crc32("|".join(map(str, head)).encode())
    for part in parts:
        if not isinstance(part, bytes):
            return -1
        crc = zlib.crc32(part, crc)
    return crc

"""Adapter of port `Results` over SQLite: committed results and history of this peer, for reading.

It refuses to be a truth of its own: the ledger is, and everything here comes back by applying it
again from `applied_index`. So a file that can't be trusted is set aside and started empty, never
repaired, and the database is allowed to lose its last commits with the power (WAL, synchronous =
NORMAL), because then the applied index is lost with them.

Invariants:
- One `store` is one transaction: its events and its applied index, both or neither.
- Every row carries a CRC-32 over all its columns, verified by every read.
- One process at a time (the lock of the data folder), one thread at a time (the port's rule). The
  exclusive mode of SQLite says the same, and needs no shared memory beside the file.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model import chunks, errors, limits
from p2psched.model.commands import Event, PeerCameUp, PeerWentDown, Recorded, Retried, Stamped
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, Segment

SCHEMA_VERSION: Final = 1
DAMAGED_KEPT_MAX: Final = 3  # files set aside, for people to look at; the oldest goes first
# What a segment costs besides its data: pages of segments without data are bounded by it too.
SEGMENT_OVERHEAD_BYTES: Final = 32
# The structure of a file up to this size is checked at open: 20 ms from memory, 2 s from a slow
# card. In a larger one damage is found by the read that meets it.
OPEN_CHECK_BYTES_MAX: Final = 32 * limits.MIB

# The lock of the data folder keeps other peers out: only a curious reader can stand in the way.
_BUSY_TIMEOUT_S: Final = 0.5
_CACHE_KIB: Final = 2048
_JOURNAL_BYTES_MAX: Final = 8 * limits.MIB  # the write-ahead log shrinks to this after its peaks
_TABLES: Final = ("applied", "history", "segment")
_SCHEMA: Final = """
BEGIN;
CREATE TABLE applied (one INTEGER PRIMARY KEY CHECK (one = 1), entry INTEGER NOT NULL);
INSERT INTO applied VALUES (1, 0);
CREATE TABLE segment (
    job TEXT NOT NULL, position INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    cause TEXT NOT NULL, busy_us INTEGER NOT NULL, "grant" INTEGER NOT NULL, peer TEXT NOT NULL,
    crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX segment_position ON segment (job, position);
CREATE INDEX segment_start ON segment (job, start);
CREATE TABLE history (
    id INTEGER PRIMARY KEY, idx INTEGER NOT NULL, job TEXT NOT NULL, at_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL, kind TEXT NOT NULL, crc INTEGER NOT NULL, event BLOB NOT NULL);
CREATE INDEX history_job ON history (job, idx);
PRAGMA user_version = 1;  -- SCHEMA_VERSION
COMMIT;
"""
_SEGMENTS: Final = (
    'SELECT position, start, stop, cause, busy_us, "grant", peer, crc, data FROM segment'
    " WHERE job = ? AND position >= ? ORDER BY position"
)
# Final results of a job never overlap, so the last start at or before an index decides.
_ITEM: Final = (
    'SELECT position, start, stop, cause, busy_us, "grant", peer, crc, data FROM segment'
    " WHERE job = ? AND start <= ? ORDER BY start DESC LIMIT 1"
)
_HISTORY: Final = (
    "SELECT idx, at_ms, wall_ms, crc, event FROM history WHERE job = ? AND idx > ? ORDER BY idx, id"
)
_FILES: Final = ("-wal", "-shm", "")  # of one database; the log goes first when it is set aside


class SqliteResults:
    """`path` is made if it is missing. What is no sound database of this version is moved to
    `<stem>.damaged-N` beside it. Raises Refused if the file can't be opened or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Event)
        try:
            try:
                self._db = _open(path)
            except _Unsound as fault:
                _set_aside(path, str(fault))
                self._db = _open(path)
            self._applied_index: int = self._db.execute("SELECT entry FROM applied").fetchone()[0]
        except (_Unsound, sqlite3.Error, OSError) as fault:
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
            self._db.executemany(
                "INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_segment_row(e.event) for e in events if isinstance(e.event, Recorded)),
            )
            self._db.executemany(
                "INSERT INTO history (idx, job, at_ms, wall_ms, kind, crc, event)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                map(self._history_row, events),
            )
            self._db.execute("UPDATE applied SET entry = ?", (applied_index,))
        self._applied_index = applied_index

    def segments(self, job: JobId, position: int, bytes_max: int) -> list[Segment]:
        """Final results in commit order from `position` on: at least one if there is one, then as
        many as fit `bytes_max` (each counts SEGMENT_OVERHEAD_BYTES more than its data)."""
        found: list[Segment] = []
        size = 0
        with self._faults("read results"), self._rows(_SEGMENTS, job, position) as rows:
            for row in rows:
                expected = position + len(found)
                if row[0] != expected:
                    raise self._damaged(f"segment {expected} of job {job} is missing")
                segment = self._verified(job, row)
                size += len(segment.data) + SEGMENT_OVERHEAD_BYTES
                if found and size > bytes_max:
                    break
                found.append(segment)
        return found

    def item(self, job: JobId, index: int) -> tuple[Segment, bytes] | None:
        """The final item of one task with its segment (data left empty), or None. Reads the whole
        segment, for its checksum. Raises ProtocolError if its owner committed what is no chunk."""
        with self._faults("read results"), self._rows(_ITEM, job, index) as rows:
            row = rows.fetchone()
            if row is None:
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

    def _verified(self, job: JobId, row: tuple[object, ...]) -> Segment:
        *head, crc, data = row
        if crc != _crc((job, *head), data):
            raise self._damaged(f"segment {head[0]} of job {job} fails its checksum")
        _, start, stop, cause, busy_us, *_ = head
        assert isinstance(start, int)
        assert isinstance(stop, int)
        assert isinstance(busy_us, int)
        assert isinstance(data, bytes)
        return Segment(start, stop, Cause(str(cause)), data, busy_us)

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
            if _is_environment(fault):
                raise errors.Unavailable(
                    f"can't {doing} in {self._path}: {fault}: free some space, check the disk"
                ) from fault
            raise self._damaged(str(fault)) from fault

    def _damaged(self, what: str) -> errors.Damaged:
        """Leaves a mark, so that the next start doesn't trust the file either."""
        with contextlib.suppress(OSError):
            _mark(self._path).touch(mode=0o600)
        return errors.Damaged(
            f"{what} ({self._path}): restart this peer; it sets the file aside then and builds it "
            "again from the ledger"
        )


def history_key(event: Event) -> JobId:
    """The job in whose history an event stands; empty for what happens to peers."""
    return JobId("") if isinstance(event, PeerCameUp | PeerWentDown) else event.job


def without_data(segment: Segment) -> Segment:
    """The same segment, its data left empty."""
    return Segment(segment.start, segment.stop, segment.cause, b"", segment.busy_us)


def event_without_data(event: Event) -> Event:
    """The event as history keeps it: of results only range, cause and time."""
    if isinstance(event, Recorded | Retried) and event.segment.data:
        return msgspec.structs.replace(event, segment=without_data(event.segment))
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


class _Unsound(Exception):
    """The file is no database that we can trust; the text says why."""


def _open(path: Path) -> sqlite3.Connection:
    if _mark(path).exists():
        raise _Unsound("an earlier read found damage in it")
    # SQLite gives its write-ahead log the mode that the file has when it is first opened.
    path.touch(mode=0o600)
    db = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(db, path)
    except sqlite3.Error as fault:
        db.close()
        if _is_environment(fault):
            raise
        raise _Unsound(str(fault)) from fault
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES_MAX}")
    names = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    tables = tuple(name for (name,) in names.fetchall())
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not tables and version == 0:
        db.executescript(_SCHEMA)
    elif tables != _TABLES or version != SCHEMA_VERSION:
        raise _Unsound(f"schema {version} is not ours ({SCHEMA_VERSION})")
    elif path.stat().st_size <= OPEN_CHECK_BYTES_MAX:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _Unsound(verdict)
    if len(db.execute("SELECT entry FROM applied WHERE entry >= 0").fetchall()) != 1:
        raise _Unsound("it has lost its applied index")


def _is_environment(fault: sqlite3.Error) -> bool:
    """True if the file may well be sound and the disk, the rights or another process stand in
    the way: then setting it aside would help nobody."""
    code = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.stem}.distrusted")


def _set_aside(path: Path, reason: str) -> None:
    """Move a database away and keep the newest few of its kind. A crash on the way is repeated by
    the next start: the mark is laid first and taken away last."""
    pattern = re.compile(re.escape(f"{path.stem}.damaged-") + r"(\d{1,9})")
    matches = (pattern.fullmatch(other.name) for other in path.parent.iterdir())
    numbers = sorted(int(match[1]) for match in matches if match)
    kept = path.with_name(f"{path.stem}.damaged-{(numbers or [0])[-1] + 1}")
    _mark(path).touch(mode=0o600)
    for suffix in _FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    for number in numbers[: max(0, len(numbers) + 1 - DAMAGED_KEPT_MAX)]:
        for suffix in _FILES:
            old = path.with_name(f"{path.stem}.damaged-{number}{suffix}")
            old.unlink(missing_ok=True)
    _mark(path).unlink()
    logging.getLogger(__name__).warning(
        "results-set-aside", extra={"file": str(path), "kept_as": kept.name, "reason": reason}
    )


def _segment_row(event: Recorded) -> tuple[object, ...]:
    segment = event.segment
    head = (
        *(event.job, event.position, segment.start, segment.stop, segment.cause.value),
        *(segment.busy_us, event.grant, event.peer),
    )
    return (*head, _crc(head, segment.data), segment.data)


def _crc(head: tuple[object, ...], data: object) -> int:
    """Over all columns of a row. A damaged row may hold any type: then no checksum fits."""
    if not isinstance(data, bytes):
        return -1
    return zlib.crc32(data, zlib.crc32("|".join(map(str, head)).encode()))

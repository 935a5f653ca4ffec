"""Brings a result store of schema 3 into today's (one of schema 4 becomes so where it is, in
`results_file`): what the ledger no longer holds and nobody else has (on a cluster of one) must
outlive an update.

The new file is written aside and takes the old one's place when it is whole, so a crash on the way
begins again at the next start. Each row's checksum is verified as it is taken over; a file with a
row that does not fit is as unsound as ever. Cost: about 0.1 ms a job, before the peer starts.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model.commands import Event, Stamped
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.store.files import aside_of, sync_folder
from p2psched.store.results_file import (
    Outdated,
    Unsound,
    is_environment,
    open_database,
    set_aside,
)
from p2psched.store.results_jobs import PEERS
from p2psched.store.results_rows import (
    SEGMENT_COLUMNS,
    VOID,
    Row,
    decode_segment,
    history_row,
    history_rows,
    job_row,
    segment_row,
    void_row,
)

_JOBS_AT_ONCE: Final = 1_000  # in one transaction
_JOBS: Final = (  # oldest first, as far as that is known
    "SELECT job FROM (SELECT job, min(id) AS first FROM history GROUP BY job"
    " UNION ALL SELECT job, 0 FROM spec UNION ALL SELECT DISTINCT job, 0 FROM segment)"
    " WHERE job <> '' GROUP BY job ORDER BY max(first)"
)
_SEGMENTS: Final = f"SELECT {SEGMENT_COLUMNS} FROM segment WHERE job = ?"  # noqa: S608
_HISTORY: Final = (
    "SELECT idx, at_ms, wall_ms, crc, event FROM history WHERE job = ? ORDER BY idx, id"
)
_event: Final = msgspec.msgpack.Decoder(Event).decode
_spec: Final = msgspec.msgpack.Decoder(JobSpec).decode


def open_or_upgrade(path: Path) -> sqlite3.Connection:
    """A sound database of today's schema; what can't be trusted is set aside."""
    try:
        try:
            return open_database(path)
        except Outdated:
            _upgrade(path)
            return open_database(path)
    except Unsound as fault:
        set_aside(path, str(fault))
        return open_database(path)


def _upgrade(path: Path) -> None:
    aside = aside_of(path)
    logging.getLogger(__name__).warning("results-upgrade", extra={"file": str(path)})
    try:
        for suffix in ("-wal", ""):  # of an upgrade that was broken off
            aside.with_name(aside.name + suffix).unlink(missing_ok=True)
        with closing(open_database(aside)) as new, closing(sqlite3.connect(path)) as old:
            _copy(old, new)
            new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # Leaves no write-ahead log that could be taken for one of the new file.
            old.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as fault:
        if is_environment(fault):
            raise
        raise Unsound(str(fault)) from fault
    aside.replace(path)
    sync_folder(path.parent)


def _copy(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    new.execute("BEGIN")
    number = 0
    for number, (job,) in enumerate(old.execute(_JOBS), start=1):
        _copy_job(old, new, JobId(job), number)
        if number % _JOBS_AT_ONCE == 0:
            new.execute("COMMIT")
            new.execute("BEGIN")
    peers = enumerate(_history(old, JobId("")))
    _insert(new, "history", (history_row(PEERS, JobId(""), [one], place) for place, one in peers))
    _insert(new, "lacking", old.execute("SELECT * FROM lacking ORDER BY rowid"))
    _insert(new, "job_number", new.execute("SELECT id, number FROM job ORDER BY id").fetchall())
    (entry,) = old.execute("SELECT entry FROM applied").fetchone()
    new.execute("UPDATE applied SET entry = ?, indexed = ?", (entry, number))
    new.execute("COMMIT")


def _copy_job(old: sqlite3.Connection, new: sqlite3.Connection, job: JobId, number: int) -> None:
    spec = None
    for crc, data in old.execute("SELECT crc, data FROM spec WHERE job = ?", (job,)):
        _check(crc, (job,), data)
        spec = _spec(data)
    _insert(new, "job", [job_row(number, job, spec)])
    _insert(new, "segment", (_segment(number, job, row) for row in old.execute(_SEGMENTS, (job,))))
    _insert(new, "history", history_rows(number, job, _history(old, job)))


def _segment(number: int, job: JobId, row: Row) -> Row:
    *head, crc, data, blobs = row
    _check(crc, (job, *head), data, blobs)
    position, start = head[:2]
    if start == VOID:
        assert isinstance(position, int)
        return void_row(number, job, position)
    return segment_row(number, decode_segment(job, row))


def _history(old: sqlite3.Connection, job: JobId) -> Iterator[Stamped]:
    for index, at_ms, wall_ms, crc, data in old.execute(_HISTORY, (job,)):
        _check(crc, (index, job, at_ms, wall_ms), data)
        yield Stamped(index, at_ms, wall_ms, _event(data))


def _insert(new: sqlite3.Connection, table: str, rows: Iterable[Row]) -> None:
    rows = iter(rows)
    for first in rows:
        sql = f"INSERT INTO {table} VALUES ({', '.join('?' * len(first))})"  # noqa: S608
        new.execute(sql, first)
        new.executemany(sql, rows)


def _check(crc: object, head: Row, *parts: object) -> None:
    """The checksum of schema 3."""
    expected = zlib.crc32("|".join(map(str, head)).encode())
    for part in parts:
        expected = zlib.crc32(part, expected) if isinstance(part, bytes) else -1
    if crc != expected:
        raise Unsound("a row of the older file fails its checksum")

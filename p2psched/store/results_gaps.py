"""What a result store lacks because its peer took a snapshot instead of the entries before it.

`lacking` names each job of which something may be missing: events of commands up to `upto`, results
at positions below `positions`. What came later was stored as it came. A gap is filled from another
peer, oldest first, and is closed when all of it is there; until then nobody may read the job here.
Functions over an open transaction of `store.results`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from p2psched.model.commands import Event, JobReopened
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.ports.results import Gap, KnownJob, Page

_PUT: Final = "INSERT OR REPLACE INTO lacking VALUES (?, ?, ?)"
_LAST_POSITION: Final = "SELECT max(position) FROM segment WHERE job = ?"
_LAST_END: Final = (
    "SELECT wall_ms FROM history WHERE job = ? AND kind = 'JobEnded' ORDER BY idx DESC LIMIT 1"
)
_REOPENED: Final = "SELECT event FROM history WHERE job = ? AND kind = 'JobReopened' AND idx > ?"


def read_gaps(db: sqlite3.Connection) -> dict[JobId, Gap]:
    rows = db.execute("SELECT job, upto, positions FROM lacking ORDER BY rowid").fetchall()
    return {JobId(job): Gap(upto, positions) for job, upto, positions in rows}


def open_gaps(db: sqlite3.Connection, jobs: Mapping[JobId, KnownJob], upto: int) -> None:
    """Note what may be missing now that entries were skipped, and let go of jobs that were
    forgotten in them. A job that ended before them, and is all here, is not touched."""
    for job, known in jobs.items():
        if not _is_here(db, job, known):
            db.execute(_PUT, (job, upto, known.positions))
    db.execute(_PUT, ("", upto, 0))  # the history of peers
    stored = db.execute("SELECT DISTINCT job FROM history UNION SELECT job FROM spec").fetchall()
    for (job,) in stored:
        if job and job not in jobs:
            forget(db, job)


def _is_here(db: sqlite3.Connection, job: JobId, known: KnownJob) -> bool:
    if known.ended_wall_ms is None or is_lacking(db, job):
        return False
    (last,) = db.execute(_LAST_POSITION, (job,)).fetchone()
    end = db.execute(_LAST_END, (job,)).fetchone()
    spec = db.execute("SELECT 1 FROM spec WHERE job = ?", (job,)).fetchone()
    positions = 0 if last is None else last + 1
    return (
        positions == known.positions
        and end is not None
        and end[0] == known.ended_wall_ms
        and spec is not None
    )


def forget(db: sqlite3.Connection, job: str) -> None:
    for table in ("segment", "history", "spec", "lacking"):
        db.execute(f"DELETE FROM {table} WHERE job = ?", (job,))  # noqa: S608


def is_lacking(db: sqlite3.Connection, job: JobId) -> bool:
    return db.execute("SELECT 1 FROM lacking WHERE job = ?", (job,)).fetchone() is not None


def holds(db: sqlite3.Connection, job: JobId, gap: Gap) -> bool:
    """False if the gap was closed, or another one opened, since somebody began to fill it."""
    row = db.execute("SELECT upto, positions FROM lacking WHERE job = ?", (job,)).fetchone()
    return row is not None and Gap(*row) == gap


def clear(db: sqlite3.Connection, job: JobId, gap: Gap) -> None:
    """What is in the gap already may be a part of a page: it comes again."""
    db.execute("DELETE FROM segment WHERE job = ? AND position < ?", (job, gap.positions))
    db.execute("DELETE FROM history WHERE job = ? AND idx <= ?", (job, gap.upto))


def cut_parts(
    db: sqlite3.Connection, job: JobId, gap: Gap, page: Page
) -> Iterable[tuple[int, list[Segment]]]:
    """The results of a page that are in the gap, by position, without those of tasks that were run
    again after it: whoever sent the page may not have known of that yet."""
    decode = msgspec.msgpack.Decoder(Event).decode
    reopened = [decode(data) for (data,) in db.execute(_REOPENED, (job, gap.upto)).fetchall()]
    by_position: dict[int, list[Segment]] = {}
    for position, segment in zip(page.positions, page.segments, strict=True):
        parts = by_position.setdefault(position, [])
        if position < gap.positions:
            left = segment.tasks
            for event in reopened:
                assert isinstance(event, JobReopened)
                left = left - event.tasks
            parts += segment.parts(left) if segment.data or left != segment.tasks else [segment]
    return by_position.items()


def close(db: sqlite3.Connection, job: JobId) -> None:
    db.execute("DELETE FROM lacking WHERE job = ?", (job,))

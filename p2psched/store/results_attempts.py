"""Attempts that were not the last of their tasks, with what they printed: a table of its own.

The ledger brings the item of every attempt that has ended, and so each peer that holds the ledger
can keep it: what a task printed is readable after the peer that ran it is gone. An attempt is named
by its grant and its task, for a task ends once under a grant.

Invariant: what is kept is bounded, of a job and of all together; the attempts that were granted
first go first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from p2psched.model.commands import Recorded, Retried
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.model.limits import KIB, MIB
from p2psched.store.results_rows import (
    SEGMENT_COLUMNS,
    Row,
    item_of,
    recorded_of,
    segment_row,
    without_data,
)

JOB_BYTES_MAX: Final = 4 * MIB
BYTES_MAX: Final = 64 * MIB
# A small job whose attempts left more than this gets rows of its own.
IN_PAGES_BYTES_MAX: Final = 2 * KIB
_ROW_BYTES: Final = 200  # what a row counts besides its data
_PUT: Final = f"INSERT OR IGNORE INTO attempt VALUES ({', '.join('?' * 11)})"  # noqa: S608
_SIZES: Final = "SELECT job, sum(length(data)), count(*) FROM attempt GROUP BY job"
_SELECT: Final = f"SELECT {SEGMENT_COLUMNS} FROM attempt"  # noqa: S608
_ONE: Final = f'{_SELECT} WHERE job = ? AND "grant" = ? AND start <= ? ORDER BY start DESC LIMIT 1'
_PAGE: Final = f'{_SELECT} WHERE job = ? AND ("grant", start) > (?, ?) ORDER BY "grant", start'
_OLD_OF_JOB: Final = (
    'SELECT rowid, job, length(data) FROM attempt WHERE job = ? ORDER BY "grant", start'
)
_OLD: Final = "SELECT rowid, job, length(data) FROM attempt ORDER BY rowid"


def is_long(event: object) -> bool:
    """True for an end of attempts that is too long for the pages of small jobs."""
    return isinstance(event, Retried) and len(event.segment.data) > IN_PAGES_BYTES_MAX


class Attempts:
    """All changes belong to the transaction that is open; `load` again after one was taken back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._sizes: dict[int, int] = {}  # of each job that has any
        self._size = 0
        self.load()

    def load(self) -> None:
        self._sizes = {
            job: data + count * _ROW_BYTES for job, data, count in self._db.execute(_SIZES)
        }
        self._size = sum(self._sizes.values())

    def add(self, number: int, event: Retried) -> None:
        """Nothing of a segment that came without its data."""
        data = event.segment.data
        if not data:
            return
        if not self._db.execute(_PUT, _row(number, event)).rowcount:
            return  # known, from another peer
        self._note(number, len(data) + _ROW_BYTES)
        if self._sizes[number] > JOB_BYTES_MAX:
            self._drop(_OLD_OF_JOB, (number,), lambda: self._sizes[number] > JOB_BYTES_MAX * 3 // 4)
        if self._size > BYTES_MAX:
            self._drop(_OLD, (), lambda: self._size > BYTES_MAX * 3 // 4)

    def _note(self, number: int, size: int) -> None:
        self._size += size
        self._sizes[number] = self._sizes.get(number, 0) + size

    def _drop(self, sql: str, values: tuple[int, ...], is_too_much: Callable[[], bool]) -> None:
        gone: list[tuple[int]] = []
        rows = self._db.execute(sql, values)
        for rowid, number, size in rows:
            if not is_too_much():
                break
            gone.append((rowid,))
            self._note(number, -size - _ROW_BYTES)
        rows.close()
        self._db.executemany("DELETE FROM attempt WHERE rowid = ?", gone)

    def forget(self, number: int) -> None:
        """The caller deletes its rows."""
        self._size -= self._sizes.pop(number, 0)

    # --- reads; all raise Mismatch ---

    @property
    def size(self) -> int:
        """What all of it counts."""
        return self._size

    def find(self, number: int, job: JobId, index: int, grant: int) -> tuple[Segment, bytes] | None:
        """As port `Results`."""
        row = self._db.execute(_ONE, (number, grant, index)).fetchone()
        if row is None:
            return None
        segment = recorded_of(job, row).segment
        if not segment.start <= index < segment.stop:
            return None
        return without_data(segment), item_of(segment, job, index)

    def page(
        self, number: int, job: JobId, after: tuple[int, int], bytes_max: int
    ) -> list[Retried]:
        """As port `Results`."""
        found: list[Retried] = []
        rows = self._db.execute(_PAGE, (number, *after))
        for row in rows:
            one = recorded_of(job, row)
            bytes_max -= len(one.segment.data) + _ROW_BYTES
            if found and bytes_max < 0:
                break
            found.append(Retried(job, one.grant, one.peer, one.segment))
        rows.close()
        return found


def _row(number: int, event: Retried) -> Row:
    """As the row of a segment, whose position means nothing here."""
    return segment_row(number, Recorded(event.job, event.grant, event.peer, 0, event.segment))

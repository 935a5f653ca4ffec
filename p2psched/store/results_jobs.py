"""By which number the result store's file knows a job.

Ids are random, so an index of ids is written all over: a page for each new job. Hence numbers are
given in order and all else is keyed by them, and new ids come into the index by thousands, sorted.
Until then they stand with their jobs only, and in memory here.

Invariant: `INDEX_EVERY` ids at the most wait; a job is in the index, or its number is above
`applied.indexed`.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from p2psched.model.ids import JobId

INDEX_EVERY: Final = 2_048  # jobs: at 100,000 that are kept, one page of the index for three
_FOUND_MAX: Final = 1_024  # of older jobs, looked up lately
PEERS: Final = 0  # of the history of peers


class JobNumbers:
    """All changes belong to the transaction that is open; `load` again after one was taken back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._new: dict[JobId, int] = {}  # not in the index yet
        self._found: dict[JobId, int] = {}
        self._indexed = 0
        self._last = 0
        self.load()

    def load(self) -> None:
        """Cost O(INDEX_EVERY)."""
        (self._indexed,) = self._db.execute("SELECT indexed FROM applied").fetchone()
        rows = self._db.execute(
            "SELECT id, number FROM job WHERE number > ? ORDER BY number", (self._indexed,)
        )
        self._new = {JobId(job): number for job, number in rows}
        self._found.clear()
        self._last = max([self._indexed, *self._new.values()])

    def find(self, job: JobId) -> int | None:
        """None if nothing is known of the job."""
        if not job:
            return PEERS
        number = self._new.get(job) or self._found.get(job)
        if number is None:
            row = self._db.execute("SELECT number FROM job_number WHERE id = ?", (job,)).fetchone()
            if row is not None:
                if len(self._found) >= _FOUND_MAX:
                    self._found.clear()
                number = self._found[job] = row[0]
        return number

    def add(self, job: JobId) -> int:
        """For a job that has no number. The caller writes its row."""
        self._last += 1
        self._new[job] = self._last
        return self._last

    def forget(self, job: JobId, number: int) -> None:
        """The caller deletes its row."""
        self._found.pop(job, None)
        if self._new.get(job) == number:
            del self._new[job]
        if number <= self._indexed:
            self._db.execute("DELETE FROM job_number WHERE id = ? AND number = ?", (job, number))

    def index(self) -> None:
        """Move what waits into the index once there is enough of it."""
        if len(self._new) < INDEX_EVERY:
            return
        # In order of ids, so that each page of the index is written once.
        self._db.executemany(
            "INSERT OR REPLACE INTO job_number VALUES (?, ?)", sorted(self._new.items())
        )
        self._db.execute("UPDATE applied SET indexed = ?", (self._last,))
        self._indexed = self._last
        self._new.clear()

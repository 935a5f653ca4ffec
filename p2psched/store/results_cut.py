"""The history of a job is bounded: of a long one the middle goes, and a line says how much it was.

The first rows stay (who submitted, who got it first), and the newest. Invariant: a job that was cut
has one `HistoryCut`, in the row that stands for what is gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from p2psched.model.commands import Stamped
from p2psched.model.history_events import HistoryCut
from p2psched.model.ids import JobId
from p2psched.model.limits import KIB, MIB
from p2psched.store.results_rows import Row, events_of, history_row
from p2psched.store.results_sql import HISTORY, PUT_HISTORY

JOB_BYTES_MAX: Final = 16 * MIB  # some 200,000 events
HEAD_BYTES: Final = 256 * KIB  # that stay at the beginning
_ROW_BYTES: Final = 64  # what a row counts besides its events
LOOK_BYTES: Final = 1 * MIB  # a job's size is looked at each time that so much was added
_KNOWN_MAX: Final = 1_024  # jobs that were written to lately
_SIZE: Final = f"SELECT coalesce(sum(length(events) + {_ROW_BYTES}), 0) FROM history WHERE job = ?"  # noqa: S608
_DELETE: Final = "DELETE FROM history WHERE job = ? AND last = ? AND place = ?"


class HistoryCutter:
    """All changes belong to the transaction that is open; `load` again after one was taken back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._written: dict[int, int] = {}  # bytes since the last look at the job

    def load(self) -> None:
        self._written.clear()

    def on_written(self, rows: Sequence[tuple[JobId, Row]]) -> None:
        """These have been added. Raises Mismatch if what is cut is damaged."""
        for job, (number, *_, events) in rows:
            assert isinstance(number, int)
            assert isinstance(events, bytes)
            written = self._written.get(number, 0) + len(events) + _ROW_BYTES
            self._written[number] = written
            if written > LOOK_BYTES:
                (size,) = self._db.execute(_SIZE, (number,)).fetchone()
                self._written[number] = 0
                if size > JOB_BYTES_MAX:
                    self._cut(number, job, size - JOB_BYTES_MAX * 3 // 4)
        if len(self._written) > _KNOWN_MAX:
            self._written.clear()

    def _cut(self, number: int, job: JobId, excess: int) -> None:
        head = 0
        gone: list[tuple[int, int]] = []
        last: Stamped | None = None
        count = 0
        rows = self._db.execute(HISTORY, (number, -1))
        for row in rows:
            size = len(row[3]) + _ROW_BYTES
            head += size
            if head <= HEAD_BYTES:
                continue
            if excess <= 0:
                break
            excess -= size
            gone.append((row[0], row[1]))
            events = events_of(job, row)
            count += sum(_weight(events))
            last = events[-1]
        rows.close()
        if last is None:
            return
        self._db.executemany(_DELETE, [(number, *place) for place in gone])
        cut = Stamped(last.index, last.at_ms, last.wall_ms, HistoryCut(job, count))
        self._db.execute(PUT_HISTORY, history_row(number, job, [cut]))


def _weight(events: Iterable[Stamped]) -> Iterable[int]:
    """Events that each stands for."""
    for stamped in events:
        yield stamped.event.events if isinstance(stamped.event, HistoryCut) else 1

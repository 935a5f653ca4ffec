"""Adapter of port `Results` over SQLite: committed results and history of this peer, for reading.

It refuses to be a truth of its own: the ledger is, and everything here comes back by applying it
again from `applied_index`. So a file that can't be trusted is set aside and started empty, never
repaired, and the database is allowed to lose its last commits with the power (WAL, synchronous =
NORMAL), because then the applied index is lost with them.

Invariants:
- One `store` is one transaction: its events and its applied index, both or neither.
- Every row carries a CRC-32 over all its columns, verified by every read (`results_rows`).
- Each position of a job has a row: that of its segment, of the parts that are left of it after
  tasks were run again, or an empty one.
- A small job is in a page with others (`results_pages`), until something unusual befalls it.
- What comes is written at the right edge of each table: all is keyed by the numbers that jobs get
  in order (`results_jobs`), and what happens to one job within one `store` is one row of history.
- One process at a time (the lock of the data folder), one thread at a time (the port's rule). The
  exclusive mode of SQLite says the same, and needs no shared memory beside the file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model import errors
from p2psched.model.commands import (
    Granted,
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    Recorded,
    Retried,
    Stamped,
)
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, Segment
from p2psched.ports.results import Page
from p2psched.store.results_attempts import Attempts, is_long
from p2psched.store.results_cut import HistoryCutter
from p2psched.store.results_faults import Faults
from p2psched.store.results_file import Unsound, give_back, mark
from p2psched.store.results_jobs import PEERS, JobNumbers
from p2psched.store.results_pages import JobPages, is_small
from p2psched.store.results_rows import (
    OF_PEERS,
    Mismatch,
    Pending,
    Row,
    events_of,
    history_row,
    history_rows,
    is_void,
    item_of,
    job_row,
    parts_without,
    recorded_of,
    segment_row,
    spec_of,
    void_row,
    without_data,
)
from p2psched.store.results_sql import (
    HISTORY,
    ITEM,
    OVERLAPPING,
    PRUNE,
    PUT_HISTORY,
    PUT_JOB,
    PUT_SEGMENT,
    SEGMENTS,
)
from p2psched.store.results_upgrade import open_or_upgrade

# What a segment costs besides its data: pages of segments without data are bounded by it too.
SEGMENT_OVERHEAD_BYTES: Final = 32
PEER_EVENTS_MAX: Final = 10_000  # in the history of peers, which no job's end takes away
PRUNE_EVERY: Final = 256  # stores

_USUAL: Final = (Granted, Recorded, JobEnded)  # what happens to a small job, after it was added


class SqliteResults:
    """`path` is made if it is missing. What is no sound database of this version is moved to
    `<stem>.damaged-N` beside it. Raises Refused if the file can't be opened or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults = Faults(path)
        self._stores = 0
        try:
            try:
                self._open()
            except Mismatch:  # is set aside as what the next start finds damaged
                mark(path).touch(mode=0o600)
                self._db.close()
                self._open()
        except (Unsound, sqlite3.Error, OSError) as fault:
            raise errors.Refused(
                f"can't open the results {path}: {fault}: check permissions and free space there"
            ) from fault

    def _open(self) -> None:
        self._db = open_or_upgrade(self._path)
        self._applied_index: int = self._db.execute("SELECT entry FROM applied").fetchone()[0]
        self._numbers = JobNumbers(self._db)
        self._pages = JobPages(self._db)
        self._attempts = Attempts(self._db)
        self._cutter = HistoryCutter(self._db)

    @property
    def applied_index(self) -> int:
        """Entry index up to which everything is stored; 0 for an empty store."""
        return self._applied_index

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        """Keep `events` and `applied_index`, both or neither. Raises Unavailable if the disk takes
        no more (the same call may be repeated) and Damaged if the file is broken."""
        assert applied_index > self._applied_index, "an entry was handed over twice"
        with self._faults("store results"), self._transaction():
            pending = Pending()
            for stamped in events:
                event = stamped.event  # of small jobs, most
                if not (isinstance(event, _USUAL) and self._pages.add(stamped, event.job)):
                    self._take(stamped, pending)
            self._write(pending)
            self._prune()
            self._numbers.index()
            self._db.execute("UPDATE applied SET entry = ?", (applied_index,))
        self._applied_index = applied_index
        with self._faults("give space back"):
            give_back(self._db)

    def _take(self, stamped: Stamped, pending: Pending) -> None:
        event = stamped.event
        if isinstance(event, OF_PEERS):  # a tuple is tested sooner than a union
            pending.peers.append(stamped)
            return
        job = event.job
        if isinstance(event, JobForgotten):
            self._forget(job, pending)
        elif job in self._pages:
            has_own = isinstance(event, JobReopened) or is_long(event)
            if has_own or not self._pages.add(stamped, job):
                self._move_out(job, pending)
                self._take_row(stamped, pending)
        elif isinstance(event, JobAdded) and is_small(event.spec):
            self._pages.begin(stamped, job)
        else:
            self._take_row(stamped, pending)

    def _move_out(self, job: JobId, pending: Pending) -> None:
        """A small job gets rows of its own."""
        for stamped in self._pages.take_out(job):
            self._take_row(stamped, pending)

    def _take_row(self, stamped: Stamped, pending: Pending) -> None:
        event = stamped.event
        assert not isinstance(event, OF_PEERS)
        job = event.job
        pending.histories.setdefault(job, []).append(stamped)
        if isinstance(event, JobAdded):
            # The first event of a job, and the ledger says it once: no need to look for an older.
            number = self._numbers.add(job)
            pending.jobs.append(job_row(number, job, event.spec))
        elif isinstance(event, Recorded):
            pending.segments.append(segment_row(self._number(job, pending), event))
        elif isinstance(event, Retried):
            self._attempts.add(self._number(job, pending), event)
        elif isinstance(event, JobReopened):
            self._write_segments(pending)
            self._reopen(self._number(job, pending), event)

    def _number(self, job: JobId, pending: Pending) -> int:
        """Of a job that is known, or becomes known by this."""
        number = self._numbers.find(job)
        if number is None:
            number = self._numbers.add(job)
            pending.jobs.append(job_row(number, job, None))
        return number

    def _forget(self, job: JobId, pending: Pending) -> None:
        """What waits of it goes at the end; what comes behind is another job's, by its number."""
        pending.histories.pop(job, None)
        if job in self._pages:
            self._pages.forget(job)
            return
        self._db.execute("DELETE FROM lacking WHERE job = ?", (job,))
        number = self._numbers.find(job)
        if number is not None:
            self._numbers.forget(job, number)
            self._attempts.forget(number)
            pending.forgotten.append((number,))

    def _write(self, pending: Pending) -> None:
        histories = [
            (job, row)
            for job, events in pending.histories.items()
            for row in history_rows(self._number(job, pending), job, events)
        ]
        self._db.executemany(PUT_JOB, pending.jobs)
        self._write_segments(pending)
        self._db.executemany(PUT_HISTORY, [row for _, row in histories])
        self._cutter.on_written(histories)
        self._pages.write()
        for place, stamped in enumerate(pending.peers):  # a row for each: pruned one by one
            self._db.execute(PUT_HISTORY, history_row(PEERS, JobId(""), (stamped,), place))
        if pending.forgotten:
            tables = (("job", "number"), ("segment", "job"), ("history", "job"), ("attempt", "job"))
            for table, column in tables:
                sql = f"DELETE FROM {table} WHERE {column} = ?"  # noqa: S608
                self._db.executemany(sql, pending.forgotten)

    def _write_segments(self, pending: Pending) -> None:
        self._db.executemany(PUT_SEGMENT, pending.segments)
        pending.segments.clear()

    def _put_spec(self, job: JobId, spec: JobSpec) -> None:
        number = self._numbers.find(job)
        self._db.execute(PUT_JOB, job_row(number or self._numbers.add(job), job, spec))

    def _reopen(self, number: int, event: JobReopened) -> None:
        for start, stop in event.tasks.ranges:
            for overlapping in OVERLAPPING:
                values = (number, stop, start, number, start)
                for row in self._db.execute(overlapping, values).fetchall():
                    self._cut(number, event, row)

    def _cut(self, number: int, event: JobReopened, row: Row) -> None:
        """Take tasks out of a stored segment; what is left stays at its position, and what is taken
        out becomes an attempt among others."""
        held = recorded_of(event.job, row)
        position, start = held.position, held.segment.start
        self._db.execute(
            "DELETE FROM segment WHERE job = ? AND position = ? AND start = ?",
            (number, position, start),
        )
        for part in parts_without(held.segment, held.segment.tasks - event.tasks):
            self._attempts.add(number, Retried(event.job, held.grant, held.peer, part))
        parts = parts_without(held.segment, event.tasks)
        for part in parts:
            left = msgspec.structs.replace(held, segment=part)
            self._db.execute(PUT_SEGMENT, segment_row(number, left))
        if not parts:
            others = self._db.execute(
                "SELECT 1 FROM segment WHERE job = ? AND position = ?", (number, position)
            ).fetchone()
            if others is None:
                self._db.execute(PUT_SEGMENT, void_row(number, event.job, position))

    def _prune(self) -> None:
        """The history of peers has no end of its own."""
        self._stores += 1
        if self._stores % PRUNE_EVERY == 0:
            self._db.execute(PRUNE, (PEER_EVENTS_MAX,))

    def segments(self, job: JobId, position: int, bytes_max: int) -> Page:
        """Final results in commit order from `position` on: at least one if there is one, then as
        many as fit `bytes_max` (each counts SEGMENT_OVERHEAD_BYTES more than its data)."""
        if job in self._pages:
            with self._faults("read results"):
                return self._pages.segments(job, position, bytes_max, SEGMENT_OVERHEAD_BYTES)
        page = Page(position)
        number = self._find(job)
        if number is None:
            return page
        size = 0
        with self._faults("read results"), self._rows(SEGMENTS, number, position) as rows:
            for row in rows:
                if row[0] not in (page.next_position, page.next_position - 1):
                    raise Mismatch(f"segment {page.next_position} of job {job} is missing")
                if is_void(job, row):
                    page.next_position = row[0] + 1
                    continue
                segment = recorded_of(job, row).segment
                size += len(segment.data) + SEGMENT_OVERHEAD_BYTES
                if page.segments and size > bytes_max and row[0] == page.next_position:
                    break  # never between the parts of one position
                page.add(row[0], segment)
        return page

    def spec(self, job: JobId) -> JobSpec | None:
        """What a job was submitted as."""
        if job in self._pages:
            with self._faults("read a job's spec"):
                return self._pages.spec(job)
        number = self._find(job)
        if number is None:
            return None
        with self._faults("read a job's spec"):
            row = self._db.execute(
                "SELECT crc, spec FROM job WHERE number = ?", (number,)
            ).fetchone()
            return None if row is None else spec_of(number, job, row)

    def item(self, job: JobId, index: int) -> tuple[Segment, bytes] | None:
        """The final item of one task with its segment (data left empty), or None. Reads the whole
        segment, for its checksum. Raises ProtocolError if its owner committed what is no chunk."""
        if job in self._pages:
            with self._faults("read results"):
                return self._pages.item(job, index)
        number = self._find(job)
        if number is None:
            return None
        with self._faults("read results"):
            for sql in ITEM:
                row = self._db.execute(sql, (number, index)).fetchone()
                if row is None or is_void(job, row):
                    continue
                segment = recorded_of(job, row).segment
                if segment.start <= index < segment.stop:
                    return without_data(segment), item_of(segment, job, index)
        return None

    def attempt(self, job: JobId, index: int, grant: int) -> tuple[Segment, bytes] | None:
        """As port `Results`."""
        with self._faults("read an attempt"):
            if job in self._pages:
                return self._pages.attempt(job, index, grant)
            number = self._numbers.find(job)
            return None if number is None else self._attempts.find(number, job, index, grant)

    @property
    def attempt_bytes(self) -> int:
        """What attempts that were not the last of their tasks take."""
        return self._attempts.size

    def attempts(self, job: JobId, after: tuple[int, int], bytes_max: int) -> list[Retried]:
        """As port `Results`."""
        with self._faults("read attempts"):
            if job in self._pages:
                return self._pages.attempts(job, after)
            number = self._numbers.find(job)
            return [] if number is None else self._attempts.page(number, job, after, bytes_max)

    def history(self, job: JobId, after: int, limit: int) -> list[Stamped]:
        """Events of a job (of peers if it is empty) with a command index above `after`, oldest
        first. `limit` may be exceeded by the rest of the last command's events: a page never ends
        inside a command, so `after` can always be the index that the page before ended with."""
        found: list[Stamped] = []
        with self._faults("read history"):
            for stamped in self._history(job, after):
                if len(found) >= limit and found and stamped.index != found[-1].index:
                    break
                found.append(stamped)
        return found

    def _history(self, job: JobId, after: int) -> Iterator[Stamped]:
        if job in self._pages:
            yield from self._pages.history(job, after)
            return
        number = self._numbers.find(job)
        if number is None:
            return
        with self._rows(HISTORY, number, after) as rows:
            for row in rows:
                yield from (s for s in events_of(job, row) if s.index > after)

    def _find(self, job: JobId) -> int | None:
        with self._faults("look for a job"):
            return self._numbers.find(job)

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

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._numbers.load()
            self._pages.load()
            self._attempts.load()
            self._cutter.load()
            raise

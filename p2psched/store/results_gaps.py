"""A result store that may lack something, because its peer took a snapshot in place of entries.

The table `lacking` names each job of which something may be missing: events of commands up to
`upto`, results at positions below `positions`. What came later was stored as it came. A gap is
filled from another peer, oldest first, and is closed when all of it is there; until then nobody may
read the job here. A crash on the way begins the fill of that job anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from p2psched.model.commands import JobEnded, JobReopened, Recorded, Retried, Stamped
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Segment
from p2psched.ports.results import Fill, Gap, KnownJob, Page
from p2psched.store.results import SqliteResults
from p2psched.store.results_rows import Pending, events_of, segment_row, void_row

_PUT: Final = "INSERT OR REPLACE INTO lacking VALUES (?, ?, ?)"
_GAP: Final = "SELECT upto, positions FROM lacking WHERE job = ?"
_LAST_POSITION: Final = "SELECT max(position) FROM segment WHERE job = ?"
_HISTORY_BACK: Final = (
    "SELECT last, place, crc, events FROM history WHERE job = ? ORDER BY last DESC, place DESC"
)
_JOBS: Final = "SELECT id FROM job"


class SqliteGapResults(SqliteResults):
    """Implements port `GapResults`."""

    def jump(self, applied_index: int, jobs: Mapping[JobId, KnownJob], upto: int) -> None:
        """Note that entries were skipped. A job that had ended before, and is all here, is not
        touched. Cost: O(jobs)."""
        assert applied_index > self._applied_index, "nothing was skipped"
        with self._faults("note what is missing"), self._transaction():
            pending = Pending()
            for job, known in jobs.items():
                if not self._is_here(job, known):
                    if job in self._pages:  # the gap is filled in rows of its own
                        self._move_out(job, pending)
                    self._db.execute(_PUT, (job, upto, known.positions))
                if known.spec is not None:
                    self._put_spec(job, known.spec)
            self._db.execute(_PUT, ("", upto, 0))  # the history of peers
            stored = [JobId(job) for (job,) in self._db.execute(_JOBS)]
            for job in (*stored, *self._pages.jobs()):
                if job not in jobs:  # forgotten in what was skipped
                    self._forget(job, pending)
            self._write(pending)
            self._numbers.index()
            self._db.execute("UPDATE applied SET entry = ?", (applied_index,))
        self._applied_index = applied_index

    def _is_here(self, job: JobId, known: KnownJob) -> bool:
        if known.ended_wall_ms is None or self._gap(job) is not None:
            return False
        if job in self._pages:
            return self._pages.is_whole(job, known)
        number = self._numbers.find(job)
        (last,) = self._db.execute(_LAST_POSITION, (number,)).fetchone()
        return (
            (0 if last is None else last + 1) == known.positions
            and self._last_end(number, job) == known.ended_wall_ms
            and self.spec(job) is not None
        )

    def _last_end(self, number: int | None, job: JobId) -> int | None:
        with self._rows(_HISTORY_BACK, number) as rows:
            for row in rows:
                for stamped in reversed(events_of(job, row)):
                    if isinstance(stamped.event, JobEnded):
                        return stamped.wall_ms
        return None

    def _gap(self, job: JobId) -> Gap | None:
        row = self._db.execute(_GAP, (job,)).fetchone()
        return None if row is None else Gap(*row)

    def gaps(self) -> dict[JobId, Gap]:
        """Oldest first."""
        with self._faults("read what is missing"):
            rows = self._db.execute("SELECT * FROM lacking ORDER BY rowid").fetchall()
        return {JobId(job): Gap(upto, positions) for job, upto, positions in rows}

    def begin_fill(self, job: JobId, gap: Gap) -> bool:
        """What is in the gap already may be a part of a page: it comes again."""

        def clear() -> None:
            number = self._numbers.find(job)
            self._db.execute(
                "DELETE FROM segment WHERE job = ? AND position < ?", (number, gap.positions)
            )
            self._db.execute("DELETE FROM history WHERE job = ? AND last <= ?", (number, gap.upto))

        return self._in_gap(job, gap, clear)

    def fill(self, job: JobId, gap: Gap, piece: Fill) -> bool:
        """Pieces come in order; what lies behind the gap is here already, and is passed over."""

        def insert() -> None:
            self._insert_history(job, [e for e in piece.events if e.index <= gap.upto])
            if piece.spec is not None:
                self._put_spec(job, piece.spec)
            if piece.page is not None:
                self._insert_page(job, gap, piece.page, piece.grants)
            self._insert_attempts(job, piece.attempts)

        return self._in_gap(job, gap, insert)

    def _insert_history(self, job: JobId, events: list[Stamped]) -> None:
        pending = Pending()
        if not job:
            pending.peers = events
        elif events:
            pending.histories[job] = events
        self._write(pending)

    def _insert_attempts(self, job: JobId, attempts: tuple[Retried, ...]) -> None:
        if attempts:
            pending = Pending()
            number = self._number(job, pending)
            for event in attempts:
                self._attempts.add(number, event)
            self._write(pending)

    def _insert_page(
        self, job: JobId, gap: Gap, page: Page, grants: Mapping[int, tuple[int, PeerId]]
    ) -> None:
        pending = Pending()
        number = self._number(job, pending)
        parts = self._parts(job, gap, page)
        for position in range(page.position, min(page.next_position, gap.positions)):
            grant, peer = grants.get(position, (0, PeerId("")))
            pending.segments += [
                segment_row(number, Recorded(job, grant, peer, position, part))
                for part in parts.get(position, ())
            ] or [void_row(number, job, position)]
        self._write(pending)

    def _parts(self, job: JobId, gap: Gap, page: Page) -> dict[int, list[Segment]]:
        """By position, without tasks that were run again after the gap: whoever sent the page may
        not have known of that yet."""
        later = (stamped.event for stamped in self._history(job, gap.upto))
        again = [event for event in later if isinstance(event, JobReopened)]
        parts: dict[int, list[Segment]] = {}
        for position, segment in zip(page.positions, page.segments, strict=True):
            left = segment.tasks
            for event in again:
                left = left - event.tasks
            whole = left == segment.tasks
            parts.setdefault(position, []).extend([segment] if whole else segment.parts(left))
        return parts

    def end_fill(self, job: JobId, gap: Gap) -> bool:
        """The gap is filled."""
        return self._in_gap(
            job, gap, lambda: self._db.execute("DELETE FROM lacking WHERE job = ?", (job,))
        )

    def _in_gap(self, job: JobId, gap: Gap, act: Callable[[], object]) -> bool:
        """False if the gap was closed, or another one opened, since somebody began to fill it."""
        with self._faults("fill what is missing"), self._transaction():
            if self._gap(job) != gap:
                return False
            act()
            return True

"""What the ledger makes of the results and the work of a peer that was cut off: the lines of its
report. Each task that was here is in one of them, under each grant.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.jobs import Job
from p2psched.core.state import LedgerState
from p2psched.model.commands import Completed, Grant
from p2psched.model.ids import JobId
from p2psched.model.reconcile import Judged
from p2psched.model.taskset import EMPTY, TaskSet

LINES_MAX: Final = 1_000  # of each kind in a report; beyond it tasks are only counted

Lines = dict[tuple[JobId, Grant, Grant], TaskSet]


class Verdicts:
    """Of one report. `last_ms` is when the newest came."""

    def __init__(self, state: LedgerState) -> None:
        self._state = state
        self.committed: Lines = {}
        self.discarded: Lines = {}
        self.ended: Lines = {}
        self.overdue: Lines = {}
        self.left_off = 0
        self.counts = {"committed": 0, "discarded": 0, "ended": 0}
        self.is_news = False  # since somebody looked

    def on_outcome(self, job: JobId, grant: Grant, outcome: Completed) -> None:
        counted = outcome.accepted | outcome.duplicate
        self._note("committed", self.committed, job, grant, counted)
        self._note("discarded", self.discarded, job, grant, outcome.stale)

    def on_revoked(self, job: JobId, grant: Grant, *, results: TaskSet, work: TaskSet) -> None:
        """These aren't this peer's any more: of some a result counts that a process before this one
        brought, some have another, of some nothing is left."""
        known = self._state.jobs.get(job)
        counted = EMPTY if known is None else known.committed.get(grant, EMPTY)
        self._note("committed", self.committed, job, grant, (results | work) & counted)
        self._note("discarded", self.discarded, job, grant, results - counted)
        self._note("ended", self.ended, job, grant, work - counted)

    def on_overdue(self, job: JobId, grant: Grant, tasks: TaskSet) -> None:
        """Ended here, and still this peer's as far as it knows."""
        self._add(self.overdue, (job, grant, 0), tasks)

    def _note(self, kind: str, lines: Lines, job: JobId, grant: Grant, tasks: TaskSet) -> None:
        if not tasks.ranges:
            return
        self.is_news = True
        self.counts[kind] += len(tasks)
        if kind == "committed":
            self._add(lines, (job, grant, grant), tasks)
            return
        for current, part in current_grants(self._state.jobs.get(job), tasks):
            self._add(lines, (job, grant, current), part)

    def _add(self, lines: Lines, key: tuple[JobId, Grant, Grant], tasks: TaskSet) -> None:
        if key in lines or len(lines) < LINES_MAX:
            lines[key] = lines.get(key, EMPTY) | tasks
        else:
            self.left_off += 1


def lines_of(lines: Lines) -> tuple[Judged, ...]:
    return tuple(Judged(job, grant, tasks, now) for (job, grant, now), tasks in lines.items())


def current_grants(job: Job | None, tasks: TaskSet) -> list[tuple[Grant, TaskSet]]:
    """Under which grants these tasks are, or have ended; 0 for those of which that isn't known."""
    found: list[tuple[Grant, TaskSet]] = []
    if job is not None:
        owned = [(held.grant, held.tasks) for held in job.grants.values()]
        for grant, part in (*owned, *reversed(job.committed.items())):  # the newest first
            same = part & tasks
            if same:
                found.append((grant, same))
                tasks = tasks - same
    if tasks:
        found.append((0, tasks))
    return found

"""How far the tasks are that run here, and what is done about those that are too slow or silent.

It keeps what the executor reported last and forgets what is not in it any more. It acts at most
once on an attempt: an alert, once for each job, or the end of the attempt as `stalled`, where the
job asked for that and it helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from p2psched.core.feed import Say
from p2psched.core.jobs import Job
from p2psched.core.levels import PACE_LEVEL
from p2psched.core.owned import Running
from p2psched.core.pace import Finding, Pace
from p2psched.core.state import LedgerState
from p2psched.model.backing import LAGGING_MAX, Lagging, LaggingTask
from p2psched.model.execution import TaskReport
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.pace_commands import Warn
from p2psched.model.pace_rules import EXPECT_AS_MEASURED, OnStall, PaceRules
from p2psched.model.progress_messages import TaskProgress
from p2psched.model.taskset import TaskSet

WHY_LEN_MAX: Final = 200
LAGGING_MS: Final = 1_000  # what has run for less is not worth another attempt
NO_RULES: Final = PaceRules()


class EndTask(msgspec.Struct, frozen=True):
    """End the attempt of a task that runs; its end is its result."""

    batch: int
    index: int
    cause: Cause
    why: str


class _Task:
    __slots__ = ("ended", "finding", "pace", "report", "run")

    def __init__(self, run: Running, pace: Pace) -> None:
        self.run = run
        self.pace = pace
        self.finding = Finding.FINE
        self.ended = False  # by us
        self.report: TaskReport | None = None


class Pacing:
    def __init__(self, machine: LedgerState, measured_ms: Callable[[JobId], int | None]) -> None:
        """`measured_ms`: what a task of this job took, as far as it is known here."""
        self._machine = machine
        self._measured_ms = measured_ms
        self._tasks: dict[tuple[int, int], _Task] = {}  # batch and index
        self._warned: dict[JobId, None] = {}  # of those that run
        self._warnings: list[Warn] = []
        self._proposed: set[int] = set()  # requests of those
        self._lagging: tuple[LaggingTask, ...] = ()  # that the coordinator is to hear of
        self.version = 0  # rises when there is something new to show

    def on_reports(
        self, reports: Iterable[TaskReport], running: Mapping[int, Running]
    ) -> list[EndTask]:
        effects: list[EndTask] = []
        before, self._tasks = self._tasks, {}
        for report in reports:
            run = running.get(report.batch)
            if run is None or run.stopped or report.index not in run.left:
                continue
            key = (report.batch, report.index)
            task = self._tasks[key] = before.get(key) or _Task(run, self._pace(run))
            if _is_news(task, report):
                self.version += 1
            task.report, shown = report, task.finding
            task.finding = task.pace.step(report)
            self.version += task.finding is not shown
            if task.finding is not Finding.FINE:
                effects += self._act(task, report)
        self.version += before.keys() != self._tasks.keys()
        jobs = {task.run.batch.job for task in self._tasks.values()}
        self._warned = {job: None for job in self._warned if job in jobs}
        self._lagging = _lagging(self._tasks.values())
        return effects

    def _pace(self, run: Running) -> Pace:
        spec = run.batch.spec
        rules = spec.pace or NO_RULES
        expect_ms = rules.expect_ms
        if expect_ms == EXPECT_AS_MEASURED:
            expect_ms = self._measured_ms(run.batch.job)
        return Pace(limit_ms=spec.timeout_ms, heartbeat_ms=rules.heartbeat_ms, expect_ms=expect_ms)

    def _act(self, task: _Task, report: TaskReport) -> list[EndTask]:
        batch, why = task.run.batch, task.pace.why[:WHY_LEN_MAX]
        job = self._machine.jobs.get(batch.job)
        if task.ended or job is None:
            return []
        rules = batch.spec.pace or NO_RULES
        if rules.on_stall is OnStall.ELSEWHERE and (
            task.finding is Finding.SILENT or self._helps(job, batch.grant, report.index)
        ):
            task.ended = True
            return [EndTask(report.batch, report.index, Cause.STALLED, why)]
        if job.id not in self._warned and self._machine.level >= PACE_LEVEL:
            self._warned[job.id] = None
            if not job.warned:
                self._warnings.append(Warn(job.id, batch.grant, report.index, why))
        return []

    def _helps(self, job: Job, grant: int, index: int) -> bool:
        """True if the task may run on a peer that it has not been slow on; or if it was slow on two
        by now, and the fault is its own. A follower knows no other peers, and trusts there are."""
        held = job.grants.get(grant)
        if held is None or any(
            index in tasks for peer, tasks in job.avoids.items() if peer != held.peer
        ):
            return True
        others = [
            row
            for peer, row in self._machine.peers.items()
            if row.live and peer != held.peer and row.info.slots >= job.spec.cpus
        ]
        return bool(others) or len(self._machine.peers) <= 1

    def take_warnings(self) -> list[Warn]:
        """To propose now."""
        if not self._warnings:
            return []
        warnings, self._warnings = self._warnings, []
        return warnings

    def ran_ms(self, batch: int, tasks: TaskSet) -> list[int]:
        """How long those of these have run that do, as of the last look."""
        reports = (task.report for task in self._tasks.values())
        return [r.ran_ms for r in reports if r and r.batch == batch and r.index in tasks]

    def left_ms(self, batch: int) -> int | None:
        """What the longest of its tasks that run will still take, at the pace that they tell."""
        tasks = [task for (number, _), task in self._tasks.items() if number == batch]
        return max((t.pace.left_ms for t in tasks if t.pace.left_ms is not None), default=None)

    def take_lagging(self) -> Lagging | None:
        """Tasks that may take too long, if there is a new look at them."""
        found, self._lagging = self._lagging, ()
        return Lagging(found) if found else None

    def say_lagging(self, coordinator: PeerId | None) -> list[Say]:
        lagging = self.take_lagging() if coordinator is not None else None
        return [Say(coordinator, lagging)] if coordinator is not None and lagging else []

    def proposed(self, request: int) -> None:
        self._proposed.add(request)

    def on_outcome(self, request: int) -> bool:
        """True if it was one of ours."""
        is_ours = request in self._proposed
        self._proposed.discard(request)
        return is_ours

    def rows(self) -> list[TaskProgress]:
        """For people, in order of job and task."""
        rows = [_row(task, task.report) for task in self._tasks.values() if task.report is not None]
        return sorted(rows, key=lambda row: (row.job, row.index))


def _lagging(tasks: Iterable[_Task]) -> tuple[LaggingTask, ...]:
    """Those that may be begun elsewhere, too: the longest."""
    found: list[LaggingTask] = []
    for task in tasks:
        report, batch = task.report, task.run.batch
        if report is None or report.ran_ms < LAGGING_MS or not batch.spec.speculates:
            continue
        rules = batch.spec.pace or NO_RULES
        stalls = rules.on_stall is OnStall.SPECULATE and task.finding is not Finding.FINE
        left_ms = task.pace.left_ms
        found.append(
            LaggingTask(batch.job, batch.grant, report.index, report.ran_ms, left_ms, stalls)
        )
    found.sort(key=lambda task: -task.ran_ms)
    return tuple(found[:LAGGING_MAX])


def _is_news(task: _Task, report: TaskReport) -> bool:
    shown = task.report
    if shown is None:
        return True
    now = (report.done, report.total, report.note, report.said_ms is None)
    return now != (shown.done, shown.total, shown.note, shown.said_ms is None)


def _row(task: _Task, report: TaskReport) -> TaskProgress:
    batch = task.run.batch
    return TaskProgress(
        job=batch.job,
        index=report.index,
        attempt=batch.attempt,
        ran_ms=report.ran_ms,
        quiet_ms=report.quiet_ms,
        done=report.done if report.said_ms is not None else None,
        total=report.total,
        note=report.note,
        left_ms=task.pace.left_ms,
        finding="" if task.finding is Finding.FINE else task.pace.why[:WHY_LEN_MAX],
    )

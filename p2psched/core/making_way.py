"""Which tasks an owner ends so that those of jobs with a higher priority may run (ADR 0070).

Two kinds of these: what waits in its own queue, and what the coordinator says waits elsewhere
(`MakeWay`). Only tasks of preemptible jobs are ended, as a drain ends them: SIGTERM, grace, the
last checkpoint to another peer, and then they are given back, at no cost to their attempts.

Never more slots are freed than what waits can take, less what is free, or about to be: because an
attempt has been told to end, or is nearly done by its own word or by what its like take. What
began a moment ago is left alone, and so is what has made way PREEMPTIONS_MAX times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from p2psched.core.known_jobs import KnownJobs
from p2psched.core.owned import Running
from p2psched.core.state import LedgerState
from p2psched.core.waiting import Waiting
from p2psched.model.commands import GiveBack
from p2psched.model.ids import JobId
from p2psched.model.precedence import MakeWay, Precedence

WAIT_MS: Final = 1_000  # a slot that is free by then was about to be
SOON_MS: Final = 2_000  # what is over by then needn't make way
ASKED_MAX: Final = 64  # words of a coordinator in one turn; others come again


class MakingWay:
    """Of one owner."""

    def __init__(
        self,
        state: LedgerState,
        jobs: KnownJobs,
        queue: Waiting,
        running: Mapping[int, Running],
        *,
        told_ms: Callable[[int], int | None],
        measured_ms: Callable[[JobId], int | None],
        slots: int,
    ) -> None:
        """`told_ms`: what a batch will still take by the pace of its task; `measured_ms`: what one
        task of a job takes; None: not known."""
        self._state = state
        self._jobs = jobs
        self._queue = queue
        self._running = running
        self._told_ms = told_ms
        self._measured_ms = measured_ms
        self._slots = slots
        self._asked: list[MakeWay] = []
        self._by: dict[int, JobId] = {}  # batches that end, and for whose task
        self._back: list[GiveBack] = []  # to propose
        self._open: dict[int, Precedence] = {}  # batches of preemptible tasks
        self._waits: tuple[JobId, int] | None = None  # what is first, and how much has begun
        self._waits_ms = 0  # since then
        self.ended = 0  # tasks, since this process started

    # --- what comes in ---

    def ask(self, way: MakeWay) -> None:
        if len(self._asked) < ASKED_MAX:
            self._asked.append(way)

    def on_ended(self, run: Running) -> bool:
        """A batch is over. True if what is left of it goes back: then that is seen to."""
        by = self.forget(run.batch.id)
        if by is None:
            return False
        batch = run.batch
        if run.left.ranges:
            self._back.append(GiveBack(batch.job, batch.grant, run.left, by=by))
            self.ended += len(run.left)
        return True

    def forget(self, batch: int) -> JobId | None:
        """It is over; for which job's task it was ended."""
        self._open.pop(batch, None)
        return self._by.pop(batch, None)

    def on_begun(self, batch: int, now_ms: int) -> None:
        run = self._running[batch]
        run.since_ms = now_ms
        precedence = run.batch.spec.precedence
        if precedence is not None and precedence.preemptible:
            self._open[batch] = precedence

    # --- a turn ---

    def take(self) -> list[GiveBack]:
        """To propose now."""
        if not self._back:
            return []
        commands, self._back = self._back, []
        return commands

    def parts(self) -> list[GiveBack]:
        """What has ended, and is not proposed yet."""
        return self._back

    def choose(self, now_ms: int, begun: int) -> list[int]:
        """Batches to end now. `begun`: batches, so far."""
        asked, self._asked = self._asked, []
        chosen: list[int] = []
        for way in asked:
            if self._is_stale(way):
                continue
            if way.unbegun:
                self._back += self._queue.give_back_below(way.priority)
            chosen += self._for_others(way, now_ms)
        if self._open and self._queue:
            chosen += self._for_own(now_ms, begun)
        return chosen

    def _is_stale(self, way: MakeWay) -> bool:
        """Who holds the ledger knows whether it waits still."""
        return self._state.applied_index > 0 and way.job not in self._state.unplaced

    def _for_others(self, way: MakeWay, now_ms: int) -> list[int]:
        chosen: list[int] = []
        for part in way.ways:
            runs = [
                run
                for run in self._running.values()
                if (run.batch.job, run.batch.grant) == (part.job, part.grant)
            ]
            count = part.count - sum(self._is_over_soon(run, now_ms) for run in runs)
            for run in self._victims(way.priority, now_ms):
                if count > 0 and run in runs:
                    chosen.append(self._end(run, way.job))
                    count -= 1
        return chosen

    def _for_own(self, now_ms: int, begun: int) -> list[int]:
        first = self._queue.first
        if self._waits != (first.job, begun):  # a slot was free since
            self._waits, self._waits_ms = (first.job, begun), now_ms
        if now_ms - self._waits_ms < WAIT_MS:
            return []
        chosen: list[int] = []
        runs = self._running.values()
        room = self._slots - sum(r.slots for r in runs if not self._is_over_soon(r, now_ms))
        for queued in self._queue:
            priority = self._jobs.priority_of(queued.job)
            victims = self._victims(priority, now_ms)
            if not victims:
                break
            cpus = min(self._jobs[queued.job].spec.cpus, self._slots)
            for _ in queued.tasks:
                room -= cpus
                while room < 0 and victims:
                    run = victims.pop(0)
                    chosen.append(self._end(run, queued.job))
                    room += run.slots
                if room < 0:
                    return chosen
        return chosen

    def _victims(self, priority: int, now_ms: int) -> list[Running]:
        """Those that may end for a task of this priority: the lowest first, then the youngest."""
        found = []
        for number, precedence in self._open.items():
            run = self._running[number]
            ran_ms = now_ms - run.since_ms
            if precedence.priority >= priority or ran_ms < precedence.runs_ms:
                continue
            if not self._is_over_soon(run, now_ms) and not self._is_spared(run):
                found.append((precedence.priority, ran_ms, number))
        return [self._running[number] for *_, number in sorted(found)]

    def _is_spared(self, run: Running) -> bool:
        job = self._state.jobs.get(run.batch.job)
        held = job.grants.get(run.batch.grant) if job is not None else None
        return job is None or held is None or held.suspect or bool(run.left & job.spared)

    def _is_over_soon(self, run: Running, now_ms: int) -> bool:
        if run.moves or run.stopped:
            return True
        left_ms = self._told_ms(run.batch.id)
        if left_ms is None:
            usual_ms, ran_ms = self._measured_ms(run.batch.job), now_ms - run.since_ms
            left_ms = usual_ms - ran_ms if usual_ms is not None and usual_ms > ran_ms else None
        return left_ms is not None and left_ms < SOON_MS

    def _end(self, run: Running, by: JobId) -> int:
        run.moves = True
        self._by[run.batch.id] = by
        return run.batch.id

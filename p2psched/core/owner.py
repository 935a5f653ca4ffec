"""What a peer does with the tasks it owns: queue, run in batches, bring the results back.

Invariants: a task is in the queue, on its way back, in one running batch, waits for copies of its
result, or is in the outbox until the ledger has judged its result; nothing is started twice under
one grant and attempt; what was revoked is never proposed again. One round of results is in flight
at a time: what piles up leaves with the next. While its peer is drained, the queue is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import msgspec

from p2psched.core.batch_sizes import Full, batch_size, has_room
from p2psched.core.departing import Own
from p2psched.core.giving import Lot
from p2psched.core.jobs import Job
from p2psched.core.leasing import HoldLease
from p2psched.core.lots import lots_of
from p2psched.core.owned import Queued, Running, fence_of, is_taken, to_move
from p2psched.core.owner_view import OwnerView
from p2psched.core.pacing import EndTask
from p2psched.core.pieces import split
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Complete, Completed, GiveBack, Grant, Outcome
from p2psched.model.execution import (
    Batch,
    Ended,
    ExecutorEvent,
    GaveBack,
    Progress,
    Reports,
    TakenBack,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.moves import Transfer
from p2psched.model.needs import Offers
from p2psched.model.once import Once
from p2psched.model.pace_commands import Warn
from p2psched.model.reconcile import KeptResult, OwnedPart
from p2psched.model.taskset import TaskSet


class StartBatch(msgspec.Struct, frozen=True):
    batch: Batch


class StopBatch(msgspec.Struct, frozen=True):
    batch: int
    cause: Cause


class CopyBlobs(msgspec.Struct, frozen=True):
    """Large results are on this peer's disk: bring them to `copies` disks in all, as far as there
    are peers, and say `on_copied`."""

    number: int
    blobs: tuple[ResultBlob, ...]  # without holders
    copies: int


class TakeBack(msgspec.Struct, frozen=True):
    """What the executor has not begun comes back, so that it may go elsewhere."""


OwnerEffect = StartBatch | StopBatch | CopyBlobs | EndTask | HoldLease | TakeBack


class Owner(OwnerView):
    """Mutable; lives as long as the process, across the peer's incarnations."""

    # --- events ---

    def on_granted(self, job: Job, grant: Grant, tasks: TaskSet) -> None:
        if (held := job.grants.get(grant)) is not None and held.moves:
            self.moved_here += len(tasks)
        for attempt, part in job.attempts(tasks):
            self._queue.add(Queued(job.id, grant, attempt, part))

    def on_revoked(
        self, job: JobId, grant: Grant, tasks: TaskSet, cause: Cause
    ) -> list[OwnerEffect]:
        """Drop what is queued, end what runs. Results already on their way are refused there."""
        work = self._queue.revoke(job, grant, tasks)
        results = self._outbox.revoke(job, grant, tasks)
        self.starting.revoke(job, grant, tasks)
        effects: list[OwnerEffect] = []
        for run in self._running.values():
            if (run.batch.job, run.batch.grant) == (job, grant) and run.left & tasks:
                work = work | (run.left & tasks)
                if cause is Cause.OVERTAKEN:
                    self._measure_overtaken(run, tasks)
                run.left = run.left - tasks
                run.stopped = True
                effects.append(StopBatch(run.batch.id, cause))
        if self.verdicts is not None:
            self.verdicts.on_revoked(job, grant, results=results, work=work)
        return effects

    def _measure_overtaken(self, run: Running, tasks: TaskSet) -> None:
        """It took so long at least: who is overtaken often must not look quick."""
        batch = run.batch
        for ran_ms in self.pacing.ran_ms(batch.id, tasks):
            self._expected.on_measured(batch.job, batch.spec.work, ran_ms * 1000, 1)

    def on_executed(self, event: ExecutorEvent) -> list[OwnerEffect]:
        if isinstance(event, Reports):
            return [*self.pacing.on_reports(event.reports, self._running)]
        if isinstance(event, TakenBack):
            return []
        run = self._running.get(event.batch)
        effects: list[OwnerEffect] = []
        if run is None:
            return effects
        match event:
            case Progress(segments=segments):
                for segment in segments:
                    effects += self._take_result(run, segment)
            case GaveBack(tasks=tasks):
                if back := run.give_back(tasks):
                    self.starting.take_back(back, run.batch.spec)
            case Ended(unstarted=unstarted):
                del self._running[event.batch]
                self._busy -= run.slots
                self._short_us -= run.short_us
                left = [] if self.making_way.on_ended(run) else run.unfinished(unstarted)
                for queued in left:
                    self.starting.take_back(queued, run.batch.spec, leaves=run.leaves)
        return effects

    def _take_result(self, run: Running, segment: Segment) -> list[OwnerEffect]:
        tasks = segment.tasks
        current = run.left & tasks
        run.left = run.left - tasks
        batch = run.batch
        if current != tasks:
            self.results_refused += len(tasks) - len(current)
        effects: list[OwnerEffect] = []
        for part in segment.parts(current):
            effects += self._post(batch.job, batch.grant, part, batch.spec.copies)
        if current.ranges:  # else the job may have ended, and nobody would ever drop this
            count = segment.stop - segment.start
            mean_us = max(1, segment.busy_us // count)
            self._expected.on_measured(batch.job, batch.spec.work, mean_us, count)
        return effects

    def _post(self, job: JobId, grant: Grant, segment: Segment, copies: int) -> list[OwnerEffect]:
        effects: list[OwnerEffect] = []
        for piece in split(segment, copies):
            if piece.blobs:
                number = self._outbox.await_copies(job, grant, piece, copies)
                effects.append(CopyBlobs(number, piece.blobs, copies))
            else:
                self._outbox.post(job, grant, piece)
        return effects

    def on_copied(self, number: int, blobs: Iterable[ResultBlob]) -> None:
        """`blobs` are those of the `CopyBlobs` with their holders: now the results may be told."""
        self._outbox.on_copied(number, blobs)

    # --- what to do next ---

    def start_batches(self) -> list[OwnerEffect]:
        """Fill free slots, and keep short batches ready behind busy ones: one each, and more as
        long as all that runs and stands ready is little. A ready batch keeps no slot waiting: the
        executor starts it wherever one is free."""
        effects: list[OwnerEffect] = []
        if not self._queue or self._outbox.is_full:
            return effects
        while self._queue:
            queued = self._queue.first
            job = self._jobs[queued.job]
            assert job.full is not None, "tasks of an ended job are owned by nobody"
            cpus = min(job.spec.cpus, self._slots)
            if job.spec.start and not self.starting.is_clear(queued):
                if self.starting.goes_on(job, free=self._slots - self._busy, slots=cpus):
                    continue
                break
            known = self._expected.of(job.id, job.full.work)
            task_us, is_guess = (None, False) if job.spec.start else known  # none stands ready
            size = batch_size(
                *(job.spec.kind, len(queued.tasks), task_us), is_guess=is_guess, slots=self._slots
            )
            tasks = queued.tasks.take(1 if job.spec.checkpoint else size)
            expected_us = None if task_us is None else task_us * len(tasks)
            # Of a job with more tasks than a guess is worth, some are measured first.
            is_start = is_guess and len(tasks) < len(queued.tasks)
            # What goes before others doesn't stand ready behind them.
            ready_us = None if job.spec.priority > 0 else task_us
            if not self._has_room(cpus, ready_us, None if is_start else expected_us) or (
                job.spec.needs is not None and is_taken(job.spec.needs, self._offers, self._running)
            ):
                break  # nothing overtakes: a task that needs many slots would wait for ever
            self._queue.take_first(tasks)
            effects.append(self._start(job.full, queued, tasks, cpus, expected_us))
        return effects

    def next_batches(
        self, now_ms: int, *, starts_nothing: bool, is_cut: bool = False
    ) -> list[OwnerEffect]:
        """As `start_batches`, while its duty cycle lets it. Who is drained or leaves starts
        nothing, and ends what saves checkpoints, which goes on elsewhere. Without a majority
        (`is_cut`) nothing makes way: it could not be given back."""
        if not starts_nothing:
            if self.duty.rests(now_ms, self._busy):
                return []
            effects = self.start_batches() if self._queue else []
            self.duty.note(self._busy)
            for effect in effects:
                if isinstance(effect, StartBatch):
                    self.making_way.on_begun(effect.batch.id, now_ms)
            ends = self.making_way.choose(now_ms, self.next_batch) if not is_cut else ()
            return [*effects, *(StopBatch(batch, Cause.PEER_LOST) for batch in ends)]
        return [StopBatch(r.batch.id, Cause.PEER_LOST) for r in to_move(self._running.values())]

    def begin_and_hold(self, by: Callable[[Once], int], now_ms: int) -> list[OwnerEffect]:
        """At the end of a turn: what must be committed before tasks start, or so that they run on.
        `by`: gives the number of a proposal."""
        self.starting.propose(by, now_ms)
        told: list[OwnerEffect] = [*self.leasing.take()]
        if self.leasing.is_under_way:
            self.leasing.propose(by, now_ms)
            lapsing = self.leasing.lapsing(now_ms)
            told += [StopBatch(batch, Cause.PEER_LOST) for batch in lapsing]
        return told

    def may_leave(self, now_ms: int) -> bool:
        """False while it ends what is exclusive, so that nobody has to wait for a lease, for a
        moment at most."""
        return self.leasing.leave(now_ms, waits=self.starting.releases)

    def _has_room(self, cpus: int, task_us: int | None, expected_us: int | None) -> bool:
        busy = self._busy + self.starting.kept
        full = Full(self._slots, busy, len(self._running), self._short_us)
        return has_room(full, cpus, task_us, expected_us)

    def _start(
        self, spec: JobSpec, queued: Queued, tasks: TaskSet, cpus: int, expected_us: int | None
    ) -> StartBatch:
        batch = Batch(
            id=self.next_batch,
            job=queued.job,
            spec=spec,
            tasks=tasks,
            grant=queued.grant,
            attempt=queued.attempt,
            fence=fence_of(self._jobs[queued.job], queued),
            expected_us=expected_us,
            until_ms=queued.until_ms,
        )
        self.next_batch += 1
        run = self._running[batch.id] = Running(batch, cpus)
        self._busy += run.slots
        self._short_us += run.short_us
        return StartBatch(batch)

    def next_round(self) -> list[Complete | Warn | GiveBack]:
        """Results to propose now, in one round, none while one is in flight; warnings; and what has
        made way for others. The caller numbers them and says so with `proposed`."""
        warnings, back = self.pacing.take_warnings(), self.making_way.take()
        return [*self._outbox.next_round(), *warnings, *back]

    def give_back(self) -> list[GiveBack]:
        """What no batch was made of, while this peer is drained; otherwise as `next_round`."""
        if self.departing.is_giving_back or not self._queue:
            return []
        return self._queue.give_back()

    def proposed(self, request: int, command: Own) -> None:
        if isinstance(command, Complete):
            self._outbox.proposed(request, command)
        elif isinstance(command, Warn):
            self.pacing.proposed(request)
        else:
            self.departing.proposed(request, command)

    def proposed_as(self, request: int) -> Complete | None:
        """The results that were proposed so, and are not judged yet."""
        return self._outbox.in_flight(request)

    def on_outcome(self, request: int, outcome: Outcome) -> bool:
        """True if it was one of ours."""
        if self.starting.on_outcome(request, outcome) or self.leasing.on_outcome(request, outcome):
            return True
        parting = self.departing.on_outcome(request, outcome)
        if parting is not None:
            if isinstance(parting, Transfer):
                self._take_again(parting)
            return True
        command = self._outbox.on_outcome(request)
        if command is None:
            return self.pacing.on_outcome(request)
        if isinstance(outcome, Completed):
            self.results_refused += len(outcome.stale)
            if self.verdicts is not None:
                self.verdicts.on_outcome(command.job, command.grant, outcome)
        return True

    def awaits_state(self, request: int) -> bool:
        """What came of this proposal the state says, not its outcome."""
        return self.departing.awaits(request) or self.starting.awaits(request)

    def _take_again(self, kept: Transfer) -> None:
        """What could not move is next."""
        job = self._machine.jobs.get(kept.job)
        for attempt, tasks in job.attempts(kept.tasks) if job is not None else ():
            self._queue.put_first(Queued(kept.job, kept.grant, attempt, tasks))

    def on_job_ended(self, job: JobId) -> list[OwnerEffect]:
        """All of it was somebody's result, or revoked. But of what was recalled the result may be
        that of a process before this one."""
        self._expected.forget(job)
        if not self._jobs.is_recalled(job):
            return []
        parts = [part for part in self.owned() if part.job == job]
        ends = (self.on_revoked(job, p.grant, p.tasks, Cause.CANCELLED) for p in parts)
        return list(chain.from_iterable(ends))

    def forget_ended(self) -> None:
        """Of jobs that ended without anybody saying so here, because a snapshot was taken."""
        self._expected.keep(self._machine.running)

    # --- without a majority: see `separation` ---

    def hold(self, job: JobId) -> list[OwnerEffect]:
        """What runs of this job ends, and nothing of it is started before `go_on`."""
        if self.verdicts is not None:
            for part in self.owned():
                if part.job == job:
                    self.verdicts.on_overdue(job, part.grant, part.tasks)
        self._queue.hold(job)
        batches = [run.batch for run in self._running.values() if run.batch.job == job]
        # What must not start twice runs on, unless its job says for how long: nobody else may.
        batches = [b for b in batches if not b.spec.start or b.spec.max_disconnect_ms is not None]
        return [StopBatch(batch.id, Cause.PEER_LOST) for batch in batches]

    def stop_unbegun(self, batches: Iterable[int]) -> list[OwnerEffect]:
        """The executor has not begun these. What must not start twice may run on though its job is
        held, and may not begin."""
        effects: list[OwnerEffect] = []
        for number in batches if self.held_back else ():
            run = self._running.get(number)
            if run is not None and not run.stopped and run.batch.job in self.held_back:
                run.stopped = True
                effects.append(StopBatch(number, Cause.PEER_LOST))
        return effects

    def go_on(self) -> None:
        self._queue.go_on()

    def recall(self, part: OwnedPart, spec: JobSpec) -> None:
        """Begin again what a process before this one had: under no attempt of before, for it may
        have begun."""
        self._jobs.recall(part.job, spec)
        self._queue.add(Queued(part.job, part.grant, part.attempt, part.tasks, begun=True))

    def recall_result(self, kept: KeptResult) -> list[OwnerEffect]:
        """A result of a process before this one, that the ledger has not judged."""
        return self._post(kept.job, kept.grant, kept.segment, kept.copies)

    # --- for the watchdog ---

    def standstill(self) -> str:
        """Why nothing is started though a slot is free, if that is right."""
        if self._outbox.is_full:
            return "results wait for the ledger, or for copies: nothing starts before they are kept"
        if self.duty.is_spent:
            return "its slots rest, as `start --duty` says"
        first = self._queue.first
        spec = self._jobs[first.job].spec
        if spec.needs is not None and is_taken(spec.needs, self._offers, self._running):
            return "GPUs or memory that it needs are still in use here"
        return self.starting.standstill(first) if spec.start else ""

    def reckon(self) -> None:
        """Count anew."""
        self._busy = sum(run.slots for run in self._running.values())
        self._short_us = sum(run.short_us for run in self._running.values())

    def lose(self, batch: int) -> GiveBack:
        """The executor has it no more: none of it may start under this grant."""
        run = self._running.pop(batch)
        self.making_way.forget(batch)
        self.reckon()
        return GiveBack(run.batch.job, run.batch.grant, run.left)

    # --- what others may have ---

    def lots(self, peer: PeerId, taker_slots: int, taker: Offers) -> list[Lot]:
        """The queue, as `giving` sees it."""
        mine = self._queue, self._jobs, self._task_us, self._machine
        return lots_of(*mine, peer=peer, slots=taker_slots, offers=taker)

    def set_aside(self, chosen: Iterable[tuple[int, int]]) -> list[tuple[JobId, Grant, TaskSet]]:
        """Of these entries of the queue so many tasks, from the end; the caller proposes at once
        what becomes of them, and says so with `proposed`."""
        return self._queue.set_aside(chosen)

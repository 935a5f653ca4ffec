"""Bugs of the ledger, planted on purpose: see `planted`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core import accepting, keeping, peering, poison
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.machine import Machine
from p2psched.core.owner import Owner
from p2psched.core.raft import made
from p2psched.core.scheduler import Answered, Asked, RenewIncarnation, Scheduler
from p2psched.core.scheduler_events import SchedulerEffect, SchedulerEvent
from p2psched.core.snapshot import encode_machine
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Complete,
    Outcome,
    PeerUp,
    Retry,
    Stamped,
    SubmitJob,
)
from p2psched.model.errors import Refused
from p2psched.model.execution import Committed
from p2psched.model.job import JobState
from p2psched.model.raft import Entry
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.script import ledger
from tests.scenarios.planted import (
    Bug,
    known,
    reads_what_it_knows,
    truncations_are_not_written,
)
from tests.sim.keep_mutants import KEEP_MUTANTS
from tests.sim.mutants import Planted


def _results_undo_a_cancel() -> Planted:
    complete = Machine._complete

    def kind(machine: Machine, command: Complete) -> Outcome:
        job = machine.jobs.get(command.job)
        if job is not None:
            tasks = TaskSet.union(segment.tasks for segment in command.segments)
            undone = tasks & job.cancelled
            job.cancelled = job.cancelled - undone
            job.succeeded = job.succeeded | undone
        return complete(machine, command)

    return patch.object(Machine, "_complete", kind)


def _a_cancel_takes_results_back() -> Planted:
    cancel = keeping.cancel

    def harsh(s: LedgerState, command: Cancel) -> Outcome:
        outcome = cancel(s, command)
        job = s.jobs.get(command.job)
        if job is not None:
            job.cancelled, job.succeeded = job.cancelled | job.succeeded, EMPTY
        return outcome

    return patch.object(keeping, "cancel", harsh)


def _cancelled_runs_again() -> Planted:
    retry = keeping.retry

    def soft(s: LedgerState, command: Retry) -> Outcome:
        job = s.jobs.get(command.job)
        if job is not None and job.state is JobState.CANCELLED:
            job.state = JobState.FAILED
            job.failed, job.cancelled = job.failed | job.cancelled, EMPTY
        return retry(s, command)

    return patch.object(keeping, "retry", soft)


def _answers_cancels_at_once() -> Planted:
    step = Scheduler.step

    def hasty(scheduler: Scheduler, event: SchedulerEvent) -> list[SchedulerEffect]:
        effects = step(scheduler, event)
        if isinstance(event, Asked) and isinstance(event.command, Cancel):
            effects.append(Answered(event.tag, Acknowledged()))
        return effects

    return patch.object(Scheduler, "step", hasty)


def _submits_again() -> Planted:
    submit = accepting.submit

    def amnesiac(machine: LedgerState, command: SubmitJob) -> Outcome:
        job = machine.jobs.get(command.job)
        if job is not None and job.ended:
            del machine.jobs[job.id]
            machine.ended.pop(job.id, None)
            machine.whole.pop(job.id, None)
        return submit(machine, command)

    return patch.object(accepting, "submit", amnesiac)


def _only_the_live_are_heard() -> Planted:
    """A result of a peer that is down is refused, though nobody else has the task."""
    current_part = Job.current_part

    def strict(job: Job, grant: int, tasks: TaskSet) -> TaskSet:
        return current_part(job, grant, tasks) - job.orphaned

    return patch.object(Job, "current_part", strict)


def _takes_what_ran() -> Planted:
    """Whoever ran a task may end it, until somebody has."""
    complete = Machine._complete

    def generous(machine: Machine, command: Complete) -> Outcome:
        job = machine.jobs.get(command.job)
        if job is not None and command.grant not in job.grants:
            tasks = TaskSet.union(segment.tasks for segment in command.segments)
            for held in job.grants.values():
                if held.tasks & tasks:
                    command = msgspec.structs.replace(command, grant=held.grant)
        return complete(machine, command)

    return patch.object(Machine, "_complete", generous)


def _results_are_replaced() -> Planted:
    """The last result counts, not the first."""
    complete = Machine._complete

    def replace(machine: Machine, command: Complete) -> Outcome:
        job = machine.jobs.get(command.job)
        if job is not None and not job.ended and command.grant not in job.grants:
            segment = command.segments[0]
            if not segment.tasks - job.succeeded:
                held = HeldGrant(command.grant, next(iter(machine.peers)), 1, EMPTY, 0)
                machine.record(job, held, segment)
        return complete(machine, command)

    return patch.object(Machine, "_complete", replace)


def _new_process_keeps_all() -> Planted:
    """A new process is taken for the old one: it is thought to go on with what that had."""

    def hand_over(
        s: LedgerState, job: Job, held: HeldGrant, command: PeerUp, *, died: bool
    ) -> None:
        job.orphaned = job.orphaned - held.tasks
        held.incarnation = command.info.incarnation

    return patch.object(peering, "_hand_over", hand_over)


def _cut_off_process_keeps_nothing() -> Planted:
    return patch.object(Owner, "kept", lambda owner: ())


def _whole_grants_are_lost() -> Planted:
    """What was done under a grant runs again with the rest of it."""
    lose = poison.lose

    def greedy(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool) -> None:
        done = job.committed.pop(held.grant, EMPTY)
        lose(s, job, held, tasks, died=died)
        job.succeeded = job.succeeded - done
        job.waiting = job.waiting | done

    return patch.object(poison, "lose", greedy)


def _forgets_repeats() -> Planted:
    def encode(machine: Machine) -> bytes:
        taken, machine._taken = machine._taken, OrderedDict()
        try:
            return encode_machine(machine)
        finally:
            machine._taken = taken

    return patch.object(ledger, "encode_machine", encode)


def _deaths_of_neighbours_count() -> Planted:
    lose = poison.lose

    def blame(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool) -> None:
        if died and tasks:
            s.peers[held.peer].alone = job.id, tasks.first
        lose(s, job, held, tasks, died=died)

    return patch.object(poison, "lose", blame)


def _blames_the_stopped() -> Planted:
    note_down = poison.note_down

    def note(s: LedgerState, row: PeerRow, *, stopped: bool) -> None:
        note_down(s, row, stopped=False)

    return patch.object(poison, "note_down", note)


def _poison_goes_round() -> Planted:
    return patch.object(poison, "POISON_DEATHS", 1 << 30)


def _skips_what_it_does_not_know() -> Planted:
    open_entry = made.open_entry

    def lax(entry: Entry) -> Committed:
        try:
            return open_entry(entry)
        except Refused:
            return Committed(entry.index, entry.stamp_ms, entry.wall_ms, ())

    return patch.object(made, "open_entry", lax)


def _lost_peers_cost_retries() -> Planted:
    lose = LedgerState.lose

    def charge(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet) -> None:
        lose(s, job, held, tasks)
        job.failures = job.failures.plus(tasks)

    return patch.object(LedgerState, "lose", charge)


def places_only_what_waits() -> Planted:
    """What a dead peer owned is nobody's to place: it stays where it was."""
    return patch.object(Job, "placeable", property(lambda job: job.waiting))


def _renews_nothing() -> Planted:
    """A peer that was declared down and lives never says so: it is alive and idle for ever."""
    on_event = Scheduler._on_event

    def deaf(scheduler: Scheduler, stamped: Stamped, now_ms: int) -> None:
        on_event(scheduler, stamped, now_ms)
        scheduler._out = [e for e in scheduler._out if not isinstance(e, RenewIncarnation)]

    return patch.object(Scheduler, "_on_event", deaf)


def _free_at_once() -> Planted:
    return next(m.plant() for m in KEEP_MUTANTS if m.name.startswith("the id of a forgotten"))


LEDGER_BUGS: Final = (
    Bug(
        "ledger_cancel_before_the_result",
        "results undo a cancel",
        _results_undo_a_cancel,
        "succeeded 1",
    ),
    Bug(
        "ledger_result_before_the_cancel",
        "a cancel takes results back",
        _a_cancel_takes_results_back,
        "cancelled 0-1",
    ),
    Bug("ledger_cancelled_stays_cancelled", "it runs again", _cancelled_runs_again, "starts J 0"),
    Bug("ledger_cancelled_stays_cancelled", "it is submitted anew", _submits_again, "accepted"),
    Bug(
        "ledger_leader_woken_after_ten_seconds",
        "cancels are answered at once",
        _answers_cancels_at_once,
        "!! what nobody asks",
    ),
    Bug("ledger_leader_woken_after_ten_seconds", "own reads", reads_what_it_knows, "!! a reads"),
    Bug("ledger_read_on_a_follower", "own reads", reads_what_it_knows, "!! c reads"),
    Bug(
        "ledger_submit_repeated_across_leaders",
        "the id of a forgotten job is free",
        _free_at_once,
        "submit J 0: accepted",
    ),
    Bug("ledger_submit_repeated_across_leaders", "it ends anew", _submits_again, "accepted"),
    Bug(
        "ledger_late_result_of_a_silent_owner",
        "only the live are heard",
        _only_the_live_are_heard,
        "stale 1",
    ),
    Bug(
        "ledger_result_before_and_after_the_new_grant",
        "the last result counts",
        _results_are_replaced,
        "1 late",
    ),
    Bug("ledger_woken_after_a_minute", "the last result counts", _results_are_replaced, "2 asleep"),
    Bug(
        "ledger_restarted_owner_keeps_nothing",
        "results are taken from whoever was granted the job",
        known("results are taken from whoever was granted the job"),
        "1 dead",
    ),
    Bug("ledger_restarted_owner_keeps_nothing", "whoever ran it", _takes_what_ran, "1 dead"),
    Bug(
        "ledger_everybody_restarts", "a new process keeps all", _new_process_keeps_all, "has 2 by 7"
    ),
    Bug("ledger_half_done_set", "a new process keeps all", _new_process_keeps_all, "has 7 by 5"),
    Bug("ledger_half_done_set", "whole grants are lost", _whole_grants_are_lost, "starts J 4"),
    Bug(
        "ledger_peer_back_and_not_idle",
        "it keeps nothing",
        _cut_off_process_keeps_nothing,
        "attempt 2",
    ),
    Bug("ledger_peer_back_and_not_idle", "it says nothing", _renews_nothing, "b/1 (down)"),
    Bug(
        "ledger_placement_after_the_down",
        "orphans stay",
        places_only_what_waits,
        "c/1 (down) has 2",
    ),
    Bug(
        "ledger_leader_dies_with_placements_under_way",
        "truncations are not written",
        truncations_are_not_written,
        "!! a stops",
    ),
    Bug(
        "ledger_proposal_committed_twice",
        "a repeat acts again",
        known("a proposal that is committed twice acts twice"),
        "waits again",
    ),
    Bug(
        "ledger_proposals_remembered_in_a_snapshot",
        "proposals are not in the snapshot",
        _forgets_repeats,
        "!! a has another state",
    ),
    Bug(
        "ledger_snapshot_between_grant_and_result",
        "a grant is lost in a snapshot",
        known("a grant is lost in a snapshot"),
        "!! c has another state",
    ),
    Bug("ledger_poison_fails_after_three_deaths", "it goes round", _poison_goes_round, "c/3 has 2"),
    Bug(
        "ledger_death_blames_no_neighbour",
        "deaths beside others count",
        _deaths_of_neighbours_count,
        "waiting 4-5",
    ),
    Bug(
        "ledger_clean_stop_blames_nobody",
        "a stop counts",
        _blames_the_stopped,
        "c runs of these only nothing",
    ),
    Bug(
        "ledger_command_of_a_later_version",
        "unknown commands are skipped",
        _skips_what_it_does_not_know,
        "a b c: J running",
    ),
    Bug("ledger_retries_are_counted_once", "a loss costs a try", _lost_peers_cost_retries, "by-9"),
)

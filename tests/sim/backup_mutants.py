"""Bugs in tasks that run on several peers, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final
from unittest.mock import patch

from p2psched.core import backing, backup_plan, feed, peering
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.raft.timing import Timing
from p2psched.core.state import LedgerState
from p2psched.model.backing import BackUp
from p2psched.model.commands import Complete, PeerUp
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

LOSSES: Final = Faults(
    crash_every_ms=1_500,
    power_loss=0.2,
    restart_ms_max=3_000,
    cut_every_ms=2_000,
    cut_ms_max=6_000,
    cuts=("alone",),
    drain_every_ms=2_000,
)


def _refuses_backups() -> Planted:
    """Only who was the owner before may end a task."""

    def settle_ends(
        s: LedgerState, job: Job, command: Complete
    ) -> tuple[Sequence[Segment], TaskSet]:
        del s, job
        return command.segments, EMPTY

    return patch.object(backing, "settle_ends", settle_ends)


def _lets_the_others_run() -> Planted:
    """Whoever ends a task is its owner, and nobody tells the others."""

    def drop_backups(self: LedgerState, job: Job, tasks: TaskSet, cause: Cause) -> None:
        if cause is not Cause.OVERTAKEN:
            _drop_backups(self, job, tasks, cause)

    _drop_backups = LedgerState.drop_backups
    return patch.object(LedgerState, "drop_backups", drop_backups)


def _waits_beside_a_backup() -> Planted:
    """A lost owner's task waits, as any other does."""
    return patch.object(backing, "promote", lambda s, job, tasks: tasks)


def _runs_twice_on_one_peer() -> Planted:
    """Nobody looks who runs a task already."""

    def lacking(job: Job) -> list[tuple[frozenset[PeerId], TaskSet]]:
        return [(frozenset(), tasks) for _, tasks in _lacking(job)]

    def wanted(s: LedgerState, job: Job, row: object, command: BackUp) -> TaskSet:
        del s, row
        owned = TaskSet.union([held.tasks for held in job.grants.values()]) - job.orphaned
        return (command.tasks & owned) - backing.enough(job) - job.thinned

    _lacking = backup_plan.lacking
    planted = ExitStack()
    planted.enter_context(patch.object(backup_plan, "lacking", lacking))
    planted.enter_context(patch.object(backing, "_wanted", wanted))
    return planted


def _fails_with_its_first_copy() -> Planted:
    """A bad end counts, whoever else runs the task."""

    def spare(s: LedgerState, job: Job, grant: int, segment: Segment) -> TaskSet:
        s.drop_backups(job, job.current_part(grant, segment.tasks), Cause.CANCELLED)
        return EMPTY

    return patch.object(backing, "_spare", spare)


def _tells_followers_of_owners_only() -> Planted:
    """A feeder does not look at backups."""

    def grants_of(job: Job, peers: Sequence[PeerId]) -> dict[PeerId, list[HeldGrant]]:
        found: dict[PeerId, list[HeldGrant]] = {}
        for held in job.grants.values():
            if held.peer in peers:
                found.setdefault(held.peer, []).append(held)
        return found

    return patch.object(feed, "_grants_of", grants_of)


def _keeps_what_is_gone() -> Planted:
    """A peer that came up again is thought to run what it backed up before."""

    def hand_over(s: LedgerState, job: Job, command: PeerUp, *, died: bool) -> None:
        del s, died
        for held in job.backups.values():
            if held.peer == command.info.peer:
                held.incarnation = command.info.incarnation

    return patch.object(peering, "_hand_backups_over", hand_over)


def _is_cancelled_without_its_backups() -> Planted:
    """A job that is over leaves its backups running."""

    def halt(self: LedgerState, job: Job, state: JobState, cause: Cause) -> None:
        for held in list(job.backups.values()):
            self.release_backup(job, held, held.tasks)
        _halt(self, job, state, cause)

    _halt = LedgerState.halt
    return patch.object(LedgerState, "halt", halt)


BACKUP_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=LOSSES,
        timing=Timing(),
        broken=broken,
        jobs_max=40,
        events=3_000,
        backing=True,
        followers=followers,
    )
    for name, plant, broken, followers in (
        ("what a backup brings is refused", _refuses_backups, "P6", 0),
        ("who is overtaken hears nothing", _lets_the_others_run, "has a backup and no owner", 0),
        ("a task waits beside its backup", _waits_beside_a_backup, "has a backup and no owner", 0),
        ("a task is twice on one peer", _runs_twice_on_one_peer, "twice on one peer", 0),
        ("one bad end of several is the task's", _fails_with_its_first_copy, "P6", 0),
        ("followers hear of owners only", _tells_followers_of_owners_only, "L5", 3),
        ("a restarted peer keeps its backups", _keeps_what_is_gone, "P6", 0),
        ("backups of a cancelled job run on", _is_cancelled_without_its_backups, "P6", 0),
    )
)

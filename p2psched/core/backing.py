"""The part of the fold that is about backups: tasks that run on more peers than their owner (ADR
0064).

A backup is a grant, too, but owns nothing: its tasks are under the grant of an owner, on another
peer, and only what is under an owner's grant may commit. Whoever ends a task well first is made its
owner by that; an owner that is lost, gives back or ends it badly leaves it to its backup, which
goes on under its own grant. So a task still has one owner at a time, and one end.

Backups are on live peers only: what a peer had of them is dropped when it is declared down. They
are never moved, and are placed by the coordinator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psched.core import fitting, levels
from p2psched.core.counter import NOTHING
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.backing import BackedUp, BackUp, Promoted
from p2psched.model.commands import Complete, GiveBack, GivenBack, Granted, Placed, Retried, Revoked
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import EMPTY, TaskSet

OK: Final = Cause.OK  # as `machine._OK`
SPECULATED_PERCENT: Final = 5  # of a job's tasks that may be begun once more in vain
SPECULATED_MIN: Final = 3  # of them, for small jobs
SPECULATED_MAX: Final = 1_000

# --- new ones -------------------------------------------------------------------------------------


def back_up(s: LedgerState, command: BackUp) -> Placed:
    grant = s.command_index
    job, row = s.jobs.get(command.job), s.peers.get(command.peer)
    if job is None or row is None or levels.refusal(s, command) is not None:
        return Placed(grant, EMPTY)
    if command.ends:
        return _call_off(s, job, command)
    is_there = row.takes_tasks and row.info.incarnation == command.incarnation
    tasks = _wanted(s, job, row, command) if is_there and not row.suspects else EMPTY
    if tasks.ranges:
        cost_us = (job.estimate_us or s.estimate_us) * job.spec.cpus
        held = HeldGrant(grant, command.peer, command.incarnation, tasks, cost_us, stays=True)
        held.gpus, held.memory_mib = fitting.weight_of(job)
        job.backups[grant] = held
        if command.speculates:
            job.speculated = job.speculated | tasks
        s.load(job, held, len(tasks))
        s.events.append(BackedUp(job.id, grant, command.peer, tasks, command.speculates))
        s.events.append(Granted(job.id, grant, command.peer, command.incarnation, tasks))
    return Placed(grant, tasks)


def _call_off(s: LedgerState, job: Job, command: BackUp) -> Placed:
    ended = EMPTY
    for held in list(job.backups.values()):
        part = held.tasks & command.tasks
        if held.peer == command.peer and part.ranges:
            s.drop_backup(job, held, part, Cause.CANCELLED)
            ended = ended | part
    return Placed(s.command_index, ended)


def _wanted(s: LedgerState, job: Job, row: PeerRow, command: BackUp) -> TaskSet:
    """What of the command the job has room for: who proposed it may not have seen all of this."""
    peer = row.info.peer
    owned = [held.tasks & command.tasks for held in job.grants.values() if held.peer != peer]
    tasks = TaskSet.union(owned) - job.orphaned - job.thinned - job.avoids.get(peer, EMPTY)
    if job.deaths.levels:
        tasks = tasks - job.suspects
    if command.speculates:
        tasks = tasks - job.backed
        tasks = (tasks - job.speculated).take(speculations_left(job))
    else:
        tasks = tasks - enough(job)
        tasks = tasks - TaskSet.union([b.tasks for b in job.backups.values() if b.peer == peer])
    return fitting.grantable(s, job, row, tasks)


def enough(job: Job) -> TaskSet:
    """Its tasks that run on as many peers as the job wants."""
    more = job.spec.replicas - 1
    if not more:
        return job.spec.tasks
    counter = NOTHING
    for held in job.backups.values():
        counter = counter.plus(held.tasks)
    return counter.at_least(more)


def speculations_left(job: Job) -> int:
    """How many of its tasks may be begun once more because they are late, beside those of which
    that was of no use yet: of a small job a few."""
    if job.full is None or not job.full.speculates:
        return 0
    most = max(SPECULATED_MIN, len(job.spec.tasks) * SPECULATED_PERCENT // 100)
    return max(0, min(most, SPECULATED_MAX) - len(job.speculated))


# --- who is the owner -----------------------------------------------------------------------------


def promote(s: LedgerState, job: Job, tasks: TaskSet) -> TaskSet:
    """Nobody owns these now: who backs one up is its owner from here on. The rest is returned."""
    for held in list(job.backups.values()) if tasks.ranges else ():
        part = held.tasks & tasks
        if part.ranges:
            _own(job, held, part)
            job.speculated = job.speculated - part  # there may be another
            s.events.append(Promoted(job.id, held.grant, held.peer, part))
            tasks = tasks - part
    return tasks


def _own(job: Job, held: HeldGrant, tasks: TaskSet) -> None:
    """A backup of these is their owner's grant now; its peer's load is what it was."""
    owned = job.grants.get(held.grant)
    if owned is None:
        owned = job.grants[held.grant] = held.part(EMPTY)
    owned.tasks = owned.tasks | tasks
    held.tasks = held.tasks - tasks
    if not held.tasks.ranges:
        del job.backups[held.grant]


# --- ends -----------------------------------------------------------------------------------------


def settle_ends(s: LedgerState, job: Job, command: Complete) -> tuple[Sequence[Segment], TaskSet]:
    """Before ends are judged as those of owners: who has ended a task well is its owner, and all
    others that run it are overtaken; who has ended it badly while others run it has it no more.

    The segments that are to be judged, and the tasks of the others."""
    if not job.backups:
        return command.segments, EMPTY
    left: list[Segment] = []
    spared = EMPTY
    for segment in command.segments:
        if segment.cause is OK:
            _overtake(s, job, command.grant, segment.tasks)
            left.append(segment)
            continue
        part = _spare(s, job, command.grant, segment)
        spared = spared | part
        left += segment.parts(segment.tasks - part) if part.ranges else [segment]
    return left, spared


def _overtake(s: LedgerState, job: Job, grant: int, tasks: TaskSet) -> None:
    mine = job.backups.get(grant)
    won = mine.tasks & tasks if mine is not None else EMPTY
    if mine is not None and won.ranges:
        for held in list(job.grants.values()):
            part = held.tasks & won
            if part.ranges:
                s.release(job, held, part)
                s.events.append(Revoked(job.id, held.grant, held.peer, part, Cause.OVERTAKEN))
        _own(job, mine, won)
        job.backups_won += len(won)
        job.speculated = job.speculated - won
    s.drop_backups(job, job.current_part(grant, tasks), Cause.OVERTAKEN)


def _spare(s: LedgerState, job: Job, grant: int, segment: Segment) -> TaskSet:
    """A bad end is none of the task's while others run it: it costs no retry. Nobody takes the
    place of who had it, or what fails at once on one peer would begin there for ever."""
    mine, owner = job.backups.get(grant), job.grants.get(grant)
    backed = mine.tasks & segment.tasks if mine is not None else EMPTY
    if mine is not None and backed.ranges:
        s.release_backup(job, mine, backed)
    owned = owner.tasks & segment.tasks & job.backed if owner is not None else EMPTY
    if owner is not None and owned.ranges:
        s.release(job, owner, owned)
        left = promote(s, job, owned)
        assert not left.ranges, "what is backed up has a backup"
    tasks = backed | owned
    if tasks.ranges:
        held = mine or owner
        assert held is not None
        job.thinned = job.thinned | tasks
        job.attempts_failed += len(tasks)
        job.bad_ends[segment.cause] = job.bad_ends.get(segment.cause, 0) + len(tasks)
        for part in segment.parts(tasks):
            s.events.append(Retried(job.id, grant, held.peer, part))
        policy = job.spec.retry
        rule = policy.rule_for(segment.cause) if policy is not None else None
        if rule is not None and rule.elsewhere:
            job.avoids[held.peer] = job.avoids.get(held.peer, EMPTY) | tasks
    return tasks


# --- given back, or back --------------------------------------------------------------------------


def give_back(s: LedgerState, job: Job, command: GiveBack) -> None:
    """Who has them as a backup does not run them."""
    held = job.backups.get(command.grant)
    tasks = held.tasks & command.tasks if held is not None else EMPTY
    if held is not None and tasks.ranges:
        s.release_backup(job, held, tasks)
        job.speculated = job.speculated - tasks
        s.events.append(GivenBack(job.id, held.grant, held.peer, tasks))


def note_running(s: LedgerState, job: Job) -> None:
    """The job runs, for the first time or again."""
    if job.full is not None and job.full.backs_up:
        s.backed[job.id] = None
    if job.spec.precedence is not None:
        s.ranked[job.id] = None


def reopen(job: Job, tasks: TaskSet) -> None:
    """These are as if they had never run."""
    job.thinned, job.speculated = job.thinned - tasks, job.speculated - tasks
    job.preempted = job.preempted.without(tasks)


def rebuild(s: LedgerState) -> None:
    """After a restore: what follows from the rest."""
    s.backed.clear()
    s.ranked.clear()
    for name in s.running:
        note_running(s, s.jobs[name])

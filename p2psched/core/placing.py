"""The part of the fold that grants: who owns which tasks from here on."""

from __future__ import annotations

from p2psched.core import fitting, holding, poison
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState
from p2psched.model.commands import Granted, Outcome, Place, Placed
from p2psched.model.taskset import EMPTY, TaskSet


def place(s: LedgerState, command: Place) -> Outcome:
    grant = s.command_index
    job = s.jobs.get(command.job)
    row = s.peers.get(command.peer)
    if job is None or row is None:
        return Placed(grant, EMPTY)
    if not row.takes_tasks or row.info.incarnation != command.incarnation:
        return Placed(grant, EMPTY)
    tasks = command.tasks
    if job.spec.needs is not None or s.apart:
        tasks = fitting.grantable(s, job, row, tasks & job.placeable)
    if job.orphaned.ranges:
        _take_orphans(s, job, tasks)
    tasks = job.ready & tasks
    if row.suspects or job.deaths.levels:
        tasks = poison.grantable(job, row, tasks)
    holds = job.spec.hold is not None
    if holds:
        tasks = holding.grantable(s, job, tasks)
    job.waiting = job.waiting - tasks
    s.note_unplaced(job)
    if tasks.ranges:
        estimate_us = job.estimate_us or s.estimate_us
        cost_us = estimate_us * job.spec.cpus
        suspect = bool(job.deaths.levels) and bool(tasks & job.suspects)
        held = HeldGrant(
            *(grant, row.info.peer, command.incarnation, tasks, cost_us),
            suspect=suspect,
            token=holding.bind(s, job, grant, tasks) if holds else 0,
        )
        if job.spec.needs is not None:
            held.gpus, held.memory_mib = fitting.weight_of(job)
        job.grants[grant] = held
        _note_placed(job, tasks)
        s.load(job, held, len(tasks))
        s.events.append(Granted(job.id, grant, command.peer, command.incarnation, tasks))
    else:
        s.end_if_done(job)
    return Placed(grant, tasks)


def _note_placed(job: Job, tasks: TaskSet) -> None:
    if job.spec.times is not None:
        job.tried = job.tried | tasks
    if job.thinned.ranges:  # this attempt may have backups again
        job.thinned = job.thinned - tasks


def _take_orphans(s: LedgerState, job: Job, tasks: TaskSet) -> None:
    from_orphans = job.orphaned & tasks
    for held in list(job.grants.values()) if from_orphans else ():
        if not s.is_live(held.peer, held.incarnation):
            died = not s.peers[held.peer].stopped
            poison.lose(s, job, held, held.tasks & from_orphans, died=died)

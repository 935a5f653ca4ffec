"""Which jobs wait for an owner though a peer has nothing to do, and why, if that is right.

Reckoned otherwise than placements are: what keeps those from being made must show here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psched.core import fitting, holding
from p2psched.core.coordinator import Coordinator
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.placement import Candidate
from p2psched.core.policies.pull import Pull
from p2psched.core.watchdog import Sight
from p2psched.model.stalls import Fault
from p2psched.model.taskset import EMPTY, TaskSet

JOBS_MAX: Final = 32  # the oldest; they are first in turn anyway
NO_SLOT: Final = "every peer that may be given tasks has some"
ON_ITS_WAY: Final = "the ledger has not taken its placement yet"
PULLED: Final = "its policy gives tasks to peers that ask for them"
RETRIES: Final = "what waits are retries: the budget for them, or the peers that they avoid"
UNFIT: Final = "no peer that has nothing to do is what it needs"


def unplaced_sights(coordinator: Coordinator, machine: Machine, *, on_its_way: bool) -> list[Sight]:
    jobs = sorted(map(machine.jobs.__getitem__, machine.unplaced), key=lambda job: job.index)
    idle = coordinator.idle()
    sights: list[Sight] = []
    for job in jobs[:JOBS_MAX]:
        tasks = holding.placeable(machine, job) - job.suspects
        if not tasks:
            continue
        reason = ON_ITS_WAY if on_its_way else _reason(machine, job, tasks, idle)
        what = f"{len(tasks)} tasks of job {job.id[:8]} wait and are placed nowhere"
        if not reason:
            what += f", though {machine.name_of(idle[0].peer)} has nothing to do"
        key = job.id, max(job.grants, default=0), len(job.waiting), len(job.orphaned)
        sights.append(Sight(Fault.PLACEMENT, key, job.id, tasks, what, reason))
    return sights


def _reason(machine: Machine, job: Job, tasks: TaskSet, idle: Sequence[Candidate]) -> str:
    """Why that is right."""
    if not idle:
        return NO_SLOT
    if job.spec.policy == Pull.name:
        return PULLED
    retried = tasks & job.retried if job.failures.levels or job.ends else EMPTY
    if retried == tasks:
        return RETRIES
    rows = [machine.peers[candidate.peer] for candidate in idle]
    if not any(
        row.info.slots >= job.spec.cpus and fitting.room(machine, job, row) > 0 for row in rows
    ):
        return UNFIT
    return ""

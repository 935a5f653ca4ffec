"""The part of the fold that is about jobs whose tasks hold a lock (see `Hold`).

A job claims permits as clients do, in turn with them, and has as many claims as it could use; one
that is granted is bound to a task when that is placed, and let go when the task has ended. So a
task is granted only under a permit. What a peer held when it was lost goes to whoever is next at
once: such tasks are not kept for a peer that may come back.

What has changed for a job is settled at the end of each command, for what one lets go of may be
what others wait for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from p2psched.core import locks
from p2psched.core.jobs import OVER, UNBOUND, Job
from p2psched.core.lock_table import WRITER_UNITS, Claim
from p2psched.core.state import LedgerState
from p2psched.model.commands import Grant, Rejected
from p2psched.model.ids import short
from p2psched.model.job import JobSpec
from p2psched.model.lock_actions import ClaimId
from p2psched.model.taskset import EMPTY, TaskSet

CLAIMS_AHEAD_MAX: Final = 64  # of one job, that no task is bound to
TOLD_MAX: Final = 3  # of those who hold what a job waits for
_CLAIM_BYTES: Final = 16


def refusal(s: LedgerState, job: Job) -> Rejected | None:
    """Why a job that would hold a lock can't be accepted."""
    hold = job.spec.hold
    return locks.refusal(s, hold.lock, hold.capacity) if hold is not None else None


# --- what may be granted --------------------------------------------------------------------------


def placeable(s: LedgerState, job: Job) -> TaskSet:
    """What of the job may be placed now."""
    return job.placeable if job.spec.hold is None else grantable(s, job, job.ready)


def first_placeable(s: LedgerState, spec: JobSpec) -> TaskSet:
    """What of a job may be placed in the entry that brings it."""
    hold = spec.hold
    if spec.after is not None:
        return EMPTY  # that entry says whether they may at all
    if hold is None:
        return spec.tasks
    lock = s.locks.by_name.get(hold.lock)
    if lock is not None and (lock.waiters or not lock.units_free):
        return EMPTY
    return spec.tasks.take(min(hold.capacity, CLAIMS_AHEAD_MAX))


def grantable_of(s: LedgerState, job: Job, groups: Iterable[TaskSet]) -> Iterable[TaskSet]:
    """Of each of these groups what may be granted now, if there is any."""
    if job.spec.hold is None:
        return groups
    return filter(None, (grantable(s, job, group) for group in groups))


def grantable(s: LedgerState, job: Job, tasks: TaskSet) -> TaskSet:
    """What of these tasks, which wait, may be granted together."""
    hold = job.spec.hold
    assert hold is not None
    ready = len(_ready(s, job))
    if not hold.in_order:
        return tasks.take(ready)
    return job.waiting.take(1) & tasks if ready and not job.grants else EMPTY


def bind(s: LedgerState, job: Job, grant: Grant, tasks: TaskSet) -> int:
    """Each of these tasks holds a permit from now on. The token of the last."""
    token = 0
    for claim, task in zip(_ready(s, job), tasks, strict=False):
        job.claims[claim] = (grant, task)
        token = locks.renew(s, s.lock_claims[claim])
    return token


def story(s: LedgerState, job: Job) -> str:
    """For people: whom it waits for."""
    hold = job.spec.hold
    assert hold is not None
    lock = s.locks.by_name[hold.lock]
    labels = [s.lock_claims[claim].label for claim in lock.holders]
    more = f" and {len(labels) - TOLD_MAX} more" if len(labels) > TOLD_MAX else ""
    before = [s.lock_claims[claim].job for claim in lock.waiters].index(job.id)
    turn = f", {before} before it" if before else ""
    return f"waits for lock {hold.lock}, held by {', '.join(labels[:TOLD_MAX])}{more}{turn}"


# --- claims ---------------------------------------------------------------------------------------


def settle(s: LedgerState) -> None:
    """At the end of a command: each job that it touched has the claims that it needs, and is among
    the unplaced if something of it may be placed."""
    while s.turning:
        touched = [s.jobs[name] for name in s.turning if name in s.jobs]
        s.turning.clear()
        for job in sorted(touched, key=lambda job: job.index):
            over = [claim for claim, bound in job.claims.items() if bound == OVER or job.ended]
            _let_go(s, job, over)
            if not job.ended:
                _claim(s, job)
            if not job.ended and placeable(s, job).ranges:
                s.unplaced[job.id] = None
            else:
                s.unplaced.pop(job.id, None)


def _ready(s: LedgerState, job: Job) -> list[ClaimId]:
    """Its permits that no task is bound to."""
    claims = s.lock_claims
    return [
        claim for claim, bound in job.claims.items() if bound == UNBOUND and claims[claim].token
    ]


def _claim(s: LedgerState, job: Job) -> None:
    """As many unbound claims as tasks could use; of an ordered job one, bound or not."""
    hold = job.spec.hold
    assert hold is not None
    unbound = [claim for claim, bound in job.claims.items() if bound == UNBOUND]
    wanted = min(hold.capacity, len(job.ready), CLAIMS_AHEAD_MAX)
    if hold.in_order:
        wanted = 0 if job.awaits else 1 - (len(job.claims) - len(unbound))
    _let_go(s, job, unbound[wanted:])  # the youngest have waited least
    for _ in range(wanted - len(unbound)):
        job.claims_made += 1
        claim = Claim(
            id=_claim_id(job),
            name=hold.lock,
            lease="",
            owner="",
            capacity=hold.capacity,
            units=1 if hold.capacity > 1 else WRITER_UNITS,
            shared=False,
            label=f"job {short(job.id)}",
            job=job.id,
        )
        job.claims[claim.id] = UNBOUND
        locks.enter(s, claim)


def _claim_id(job: Job) -> ClaimId:
    seed = f"{job.id}/{job.claims_made}".encode()
    return hashlib.blake2b(seed, digest_size=_CLAIM_BYTES).hexdigest()


def _let_go(s: LedgerState, job: Job, claims: Iterable[ClaimId]) -> None:
    for claim in claims:
        del job.claims[claim]
        locks.end(s, [s.lock_claims[claim]])

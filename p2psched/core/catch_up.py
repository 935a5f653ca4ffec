"""After a snapshot was taken: make an owner's work fit a state whose making it has not seen.

Grants that came meanwhile are begun, those that went are ended; what is on its way to the ledger is
left alone, for it will be judged there. Safe to repeat.
"""

from __future__ import annotations

from collections.abc import Collection

from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.owner import Owner, OwnerEffect
from p2psched.core.state import LedgerState
from p2psched.model.commands import PeerInfo
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.taskset import EMPTY, TaskSet


def catch_up(
    owner: Owner, state: LedgerState, info: PeerInfo, *, named: Collection[JobId] | None = None
) -> list[OwnerEffect]:
    """What the missed `Granted`, `Revoked` and `JobEnded` would have led to; only of the `named`
    jobs, if there are any."""
    effects: list[OwnerEffect] = []
    held = owner.held()
    for (job_id, grant), tasks in held.items():
        if named is not None and job_id not in named:
            continue
        job = state.jobs.get(job_id)
        gone = tasks if job is None else tasks - job.answerable(grant, tasks)
        if gone:
            runs_elsewhere = job is not None and not job.ended
            cause = Cause.PEER_LOST if runs_elsewhere else Cause.CANCELLED
            effects += owner.on_revoked(job_id, grant, gone, cause)
    for job_id in state.running if named is None else named:
        job = state.jobs.get(job_id)
        if job is None:
            continue
        for grant, granted in (*job.grants.items(), *job.backups.items()):
            if (granted.peer, granted.incarnation) == (info.peer, info.incarnation):
                _take(owner, job, granted, granted.tasks - held.get((job_id, grant), EMPTY))
    if named is None:
        owner.forget_ended()
    return effects


def _take(owner: Owner, job: Job, granted: HeldGrant, unheard: TaskSet) -> None:
    """What it did not know that it owns. What must not start twice and may have begun it has not
    in mind any more: that is nobody's then."""
    owner.starting.lose(job.id, granted.grant, unheard & granted.started)
    fresh = unheard - granted.started
    if fresh:
        owner.on_granted(job, granted.grant, fresh)

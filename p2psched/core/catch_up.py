"""After a snapshot was taken: make an owner's work fit a state whose making it has not seen.

Grants that came meanwhile are begun, those that went are ended; what is on its way to the ledger is
left alone, for it will be judged there. Safe to repeat.
"""

from __future__ import annotations

from p2psched.core.machine import Machine
from p2psched.core.owner import Owner, OwnerEffect
from p2psched.model.commands import PeerInfo
from p2psched.model.job import Cause
from p2psched.model.taskset import EMPTY


def catch_up(owner: Owner, machine: Machine, info: PeerInfo) -> list[OwnerEffect]:
    """What the missed `Granted`, `Revoked` and `JobEnded` would have led to."""
    effects: list[OwnerEffect] = []
    held = owner.held()
    for (job_id, grant), tasks in held.items():
        job = machine.jobs.get(job_id)
        gone = tasks if job is None else tasks - job.current_part(grant, tasks)
        if gone:
            runs_elsewhere = job is not None and not job.ended
            cause = Cause.PEER_LOST if runs_elsewhere else Cause.CANCELLED
            effects += owner.on_revoked(job_id, grant, gone, cause)
    for job_id in machine.running:
        job = machine.jobs[job_id]
        for grant, granted in job.grants.items():
            if (granted.peer, granted.incarnation) == (info.peer, info.incarnation):
                unknown = granted.tasks - held.get((job_id, grant), EMPTY)
                if unknown:
                    owner.on_granted(job, grant, unknown)
    owner.forget_ended()
    return effects

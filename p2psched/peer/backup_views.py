"""On how many peers tasks of a job run, for who looks at it."""

from __future__ import annotations

from typing import Final

from p2psched.core import fitting
from p2psched.core.backup_plan import domain_of
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.model.backing import BackupView
from p2psched.model.ids import PeerId

NONE: Final = BackupView()


def backup_view(job: Job, machine: Machine, *, whole: bool) -> BackupView:
    backing = job.spec.backing
    if backing is None and not job.backups_won and not job.speculated:
        return NONE
    at: dict[PeerId, int] = {}
    for held in job.backups.values():
        at[held.peer] = at.get(held.peer, 0) + len(held.tasks)
    return BackupView(
        replicas=job.spec.replicas,
        speculates=backing is not None and backing.speculate,
        tasks=len(job.backed),
        won=job.backups_won,
        late=len(job.speculated),
        at=tuple(sorted(at.items())),
        short=shortfall(job, machine) if whole and not job.ended else "",
    )


def shortfall(job: Job, machine: Machine) -> str:
    """Why there are fewer replicas than the job wants, or nearer together; empty if there need not
    be."""
    wanted, domain = job.spec.replicas, domain_of(job)
    able = [
        row
        for row in machine.peers.values()
        if row.takes_tasks and fitting.fits(job.spec, row.info.slots, row.offers)
    ]
    if len(able) < wanted:
        there = f"{len(able)} of them" if len(able) > 1 else "one of them"
        return f"only {there} can run now, on as many peers: start another one"
    values = {row.offers.label(domain) for row in able} - {""}
    if 0 < len(values) < wanted:
        return f"some are in one {domain}: there are {len(values)}, and it wants {wanted}"
    return ""

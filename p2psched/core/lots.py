"""The queue of an owner as `giving` sees it: what of it may go to a peer that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from p2psched.core import fitting
from p2psched.core.giving import Lot
from p2psched.core.jobs import Job
from p2psched.core.known_jobs import KnownJobs
from p2psched.core.owned import Queued
from p2psched.core.state import LedgerState
from p2psched.model.ids import PeerId
from p2psched.model.needs import Offers


def lots_of(
    queue: Iterable[Queued],
    jobs: KnownJobs,
    task_us: Callable[[Job], int],
    state: LedgerState,
    *,
    peer: PeerId,
    slots: int,
    offers: Offers,
) -> list[Lot]:
    """`peer` asks, and has `slots` and `offers`; `task_us` is expected of a job's tasks."""
    lots: list[Lot] = []
    for queued in queue:
        job = jobs[queued.job]
        held, full = job.grants.get(queued.grant), job.full
        may_go = not (queued.begun or queued.cleared) and held is not None and full is not None
        if job.spec.needs is not None:
            may_go = may_go and fitting.fits(job.spec, slots, offers)
            may_go = may_go and fitting.may_offer(state, job, queued.grant, peer)
        if peer in job.avoids:
            may_go = may_go and not queued.tasks & job.avoids[peer]
        bound = job.spec.hold is not None or job.spec.replicas > 1
        bound = bound or (held is not None and (held.suspect or held.stays))
        lots.append(
            Lot(
                *(len(queued.tasks), task_us(job), job.spec.cpus),
                moves=held.moves if held is not None else 0,
                may_go=may_go and not bound,
                carry_bytes=sum(ref.size for ref in job.spec.blobs),
            )
        )
    return lots

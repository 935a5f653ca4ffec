"""The part of the fold that moves tasks from an owner to another peer (ADR 0051).

Only the owner knows what it has not started, so only its own proposal counts, and while it is
live: what a lost owner had is for the coordinator to place. Tasks move under a newer grant, which
is the fence; what can't move stays where it is.
"""

from __future__ import annotations

from typing import Final

from p2psched.core import fitting, poison
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState
from p2psched.model.commands import Granted, Outcome, Placed
from p2psched.model.ids import PeerId
from p2psched.model.moves import Moved, Transfer
from p2psched.model.taskset import EMPTY, TaskSet

# Of a task, from peer to peer, since it was placed. Halves of halves reach 65,000 peers.
MOVES_MAX: Final = 16
PAIRS_MAX: Final = 64  # who gave to whom, that a job remembers; of others only the sum


def transfer(s: LedgerState, proposer: PeerId, command: Transfer) -> Outcome:
    grant = s.command_index
    job = s.jobs.get(command.job)
    held = job.grants.get(command.grant) if job is not None else None
    if job is None or held is None or held.peer != proposer or held.moves >= MOVES_MAX:
        return Placed(grant, EMPTY)
    tasks = _movable(s, job, held, command)
    if not tasks.ranges:
        return Placed(grant, EMPTY)
    s.release(job, held, tasks)
    new = HeldGrant(
        *(grant, command.peer, command.incarnation, tasks, held.estimate_us),
        moves=held.moves + 1,
        gpus=held.gpus,
        memory_mib=held.memory_mib,
    )
    job.grants[grant] = new
    s.load(job, new, len(tasks))
    _count(job, held.peer, command.peer, len(tasks))
    s.events.append(Moved(job.id, held.grant, held.peer, tasks, grant, command.peer))
    s.events.append(Granted(job.id, grant, command.peer, command.incarnation, tasks))
    return Placed(grant, tasks)


def _movable(s: LedgerState, job: Job, held: HeldGrant, command: Transfer) -> TaskSet:
    row = s.peers.get(command.peer)
    if row is None or not row.takes_tasks or row.info.incarnation != command.incarnation:
        return EMPTY
    needs = job.spec.needs
    stays = needs is not None and not needs.steal
    stays = stays or held.stays or job.spec.replicas > 1
    is_bound = job.spec.hold is not None or held.suspect or stays
    if is_bound or command.peer == held.peer or not s.is_live(held.peer, held.incarnation):
        return EMPTY
    wanted = (held.tasks & command.tasks) - held.started - job.backed
    if job.avoids:  # the giver is such another peer as they shall run on
        wanted = wanted - job.avoids.get(command.peer, EMPTY)
    tasks = fitting.movable(s, job, held, row, wanted)
    return poison.grantable(job, row, tasks) if row.suspects or job.deaths.levels else tasks


def _count(job: Job, giver: PeerId, taker: PeerId, count: int) -> None:
    job.moved_count += count
    counts = {(one, other): number for one, other, number in job.moved}
    known = counts.get((giver, taker))
    if known is not None or len(counts) < PAIRS_MAX:
        counts[giver, taker] = (known or 0) + count
        job.moved = tuple((*pair, number) for pair, number in counts.items())

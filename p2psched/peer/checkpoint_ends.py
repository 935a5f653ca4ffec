"""Whether the ledger needs anything of a task any more: then its checkpoints may go."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from p2psched.core.feed import members_of
from p2psched.core.jobs import Job
from p2psched.core.state import LedgerState
from p2psched.model.errors import NotFound, Unavailable
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobState
from p2psched.model.messages import JobView, ShowJob
from p2psched.model.raft import Membership
from p2psched.peer.others import Others

if TYPE_CHECKING:
    from p2psched.peer.scheduler_loop import SchedulerLoop


async def is_over(scheduling: SchedulerLoop, job: JobId, task: int) -> bool:
    """On a peer that holds the ledger. Raises Unavailable while it may be behind."""
    state = scheduling.scheduler.machine
    if not is_over_in(state, job, task):
        return False
    if job not in state.jobs:  # forgotten, or not heard of yet
        await scheduling.wait_linearizable()
    return is_over_in(state, job, task)


def is_over_in(state: LedgerState, job: JobId, task: int) -> bool:
    """As far as this state goes; one that is not there, too."""
    found: Job | None = state.jobs.get(job)
    if found is None or found.ended:
        return True
    return any(task in ended for ended in (found.succeeded, found.failed, found.cancelled))


async def is_over_elsewhere(
    others: Others, group: Callable[[], Membership], job: JobId, _task: int
) -> bool:
    """As far as those know who hold it: once the whole job has ended. Raises Unavailable."""
    members: list[PeerId] = [member.peer for member in members_of(group())]
    for peer in members:
        try:
            answer = await others.call(peer, ShowJob(job))
        except NotFound:
            return True
        except Unavailable:
            continue
        return isinstance(answer, JobView) and answer.state is not JobState.RUNNING
    raise Unavailable("nobody who holds the ledger is within reach")

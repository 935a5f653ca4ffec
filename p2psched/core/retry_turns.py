"""In which order and where tasks are placed again that have ended badly.

First attempts of a job come in its turn and may go anywhere, as ever. Of its retries there are as
many in its turn as the budget allows; those of demoted tasks come when a job would that was
submitted as they were demoted. What shall run elsewhere stays off its peers as long as any other
one could ever run it, however busy that one is now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from p2psched.core.jobs import Job
from p2psched.core.placement import Candidate
from p2psched.core.retry_budget import RetryBudget
from p2psched.model.ids import PeerId
from p2psched.model.taskset import TaskSet

GROUPS_MAX: Final = 16  # of one job's retries in one round, by the peers that they avoid


class Turn(NamedTuple):
    """Tasks of a job that are placed together."""

    at: int  # the least is first, of those of one priority
    job: Job
    tasks: TaskSet
    is_retry: bool = False
    avoids: frozenset[PeerId] = frozenset()

    def limited(
        self,
        budget: RetryBudget,
        cost_us: int,
        candidates: Sequence[Candidate],
        able: Sequence[Candidate],
    ) -> tuple[list[Candidate], TaskSet]:
        """Of retries: those of `candidates` that they may go to, and which of them may go now.
        `able`: those that have what the job needs, also those that are kept free."""
        cpus, fitting = self.job.spec.cpus, list(candidates)
        if any(c.slots >= cpus and c.peer not in self.avoids for c in able):
            fitting = [c for c in candidates if c.peer not in self.avoids]
        return budget.allowed(self.job, self.tasks, cost_us, fitting)


def turns(jobs: Iterable[tuple[Job, TaskSet]]) -> list[Turn]:
    """`jobs`, in order, and what of each may be placed now."""
    found: list[Turn] = []
    is_sorted = True
    for job, tasks in jobs:
        retried = tasks & job.retried if job.failures.levels or job.ends else None
        if not retried:
            found.append(Turn(job.index, job, tasks))
            continue
        fresh = tasks - retried
        if fresh:
            found.append(Turn(job.index, job, fresh))
        demoted = retried & job.demoted
        is_sorted = is_sorted and not demoted
        for at, part in ((job.index, retried - demoted), *job.places(demoted)):
            found += [Turn(at, job, same, True, avoids) for avoids, same in _groups(job, part)]
    return (
        found if is_sorted else sorted(found, key=lambda turn: (-turn.job.spec.priority, turn.at))
    )


def _groups(job: Job, tasks: TaskSet) -> list[tuple[frozenset[PeerId], TaskSet]]:
    """By the peers that they avoid."""
    groups: list[tuple[frozenset[PeerId], TaskSet]] = [(frozenset(), tasks)] if tasks else []
    for peer, avoided in sorted(job.avoids.items()):
        groups = [
            (more, part)
            for avoids, group in groups
            for more, part in ((avoids, group - avoided), (avoids | {peer}, group & avoided))
            if part
        ][:GROUPS_MAX]
    return groups

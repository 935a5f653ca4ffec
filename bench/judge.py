"""What a job that was accepted must have come to, whatever went wrong meanwhile (P1, P6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from p2psched.client.job import Job
from p2psched.model.commands import Recorded
from p2psched.model.job import JobState


async def judge(job: Job, values: Sequence[object]) -> None:
    """Waits for its end. It is not lost, has these results, and each of its tasks counts once."""
    view = await job.wait()
    assert (view.state, view.succeeded) == (JobState.SUCCEEDED, len(values)), view
    assert await job.results() == list(values), job
    await judge_history(job)


async def judge_history(job: Job) -> None:
    """No task of an ended job was recorded twice, and each was."""
    recorded: Counter[int] = Counter()
    for stamped in (await job.history()).events:
        if isinstance(stamped.event, Recorded):
            recorded.update(stamped.event.segment.tasks)
    assert recorded == Counter((await job.show()).task_set), job

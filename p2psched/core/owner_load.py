"""How busy an owner is: what it tells others of its queue and its speed."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from p2psched.core.expectations import Expectations
from p2psched.core.kinds import kind_of
from p2psched.core.known_jobs import KnownJobs
from p2psched.core.owned import Queued, Running
from p2psched.model.ids import JobId
from p2psched.model.load import LoadReport
from p2psched.model.load_news import QUEUED_MAX, SPEEDS_MAX

# Of the queue; the rest is taken to be like these. A few milliseconds.
LOOKED_AT_MAX: Final = 512


def owner_load(
    jobs: KnownJobs,
    slots: int,
    queue: Iterable[Queued],
    running: Iterable[Running],
    expected: Expectations,
) -> LoadReport:
    """Work that nobody has measured yet counts as what tasks take on average, as far as known."""
    waiting: dict[JobId, int] = {}
    beyond = 0
    for number, queued in enumerate(queue):
        if number < LOOKED_AT_MAX:
            waiting[queued.job] = waiting.get(queued.job, 0) + len(queued.tasks)
        else:
            beyond += len(queued.tasks)
    kinds: dict[int, int] = {}
    queue_us = 0
    for name, count in waiting.items():
        spec = jobs[name].full
        assert spec is not None, "tasks of an ended job are owned by nobody"
        kind = kind_of(spec.work)
        kinds[kind] = kinds.get(kind, 0) + count
        task_us, _ = expected.of(name, spec.work)
        queue_us += (task_us or jobs.estimate_us) * count * spec.cpus
    looked_at = sum(waiting.values())
    if beyond:
        queue_us += queue_us * beyond // looked_at
    busy = 0
    for run in running:
        busy += run.slots
        batch = run.batch
        task_us, _ = expected.of(batch.job, batch.spec.work)
        queue_us += (task_us or jobs.estimate_us) * len(run.left) * run.slots
    return LoadReport(
        number=0,
        slots=slots,
        running=min(slots, busy),
        queue=looked_at + beyond,
        queue_us=queue_us,
        queued=tuple(heapq.nlargest(QUEUED_MAX, kinds.items(), key=lambda one: (one[1], one[0]))),
        speeds=expected.speeds(SPEEDS_MAX),
        warm=expected.warm,
    )

"""How long a task is expected to take, from what was measured on this peer.

Measured for each job, and for each function or command line: jobs of one task each have nothing of
their own to go by. What was measured of another job is a guess, and said to be one: its arguments
may have been others. Nothing here may be relied on for more than how much to hand over at once.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from p2psched.core.kinds import kind_name
from p2psched.model.ids import JobId
from p2psched.model.job import Work

KINDS_MAX: Final = 256  # of work whose time is known; what was measured longest ago is forgotten


class Expectations:
    def __init__(self) -> None:
        self._jobs: dict[JobId, int] = {}
        self._kinds: dict[bytes, int] = {}  # oldest first

    def of(self, job: JobId, work: Work) -> tuple[int | None, bool]:
        """Time of one task in us, at least 1, or None; and whether that is a guess."""
        known = self._jobs.get(job)
        if known is not None:
            return known, False
        return self._kinds.get(kind_name(work)), True

    def on_measured(self, job: JobId, work: Work, task_us: int) -> None:
        """The mean of some tasks that have just ended. The newest count most: half."""
        task_us = max(1, task_us)
        known = self._jobs.get(job)
        self._jobs[job] = task_us if known is None else max(1, (known + task_us) // 2)
        kind = kind_name(work)
        # One that takes long now and then is seldom thought to be quick, which is the safe side.
        known = self._kinds.pop(kind, None)
        self._kinds[kind] = task_us if known is None else max(1, (known + task_us) // 2)
        if len(self._kinds) > KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]

    def forget(self, job: JobId) -> None:
        """It has ended."""
        self._jobs.pop(job, None)

    def keep(self, jobs: Container[JobId]) -> None:
        """Forget all other jobs."""
        self._jobs = {job: us for job, us in self._jobs.items() if job in jobs}

"""How long a task is expected to take, from what was measured on this peer.

Measured for each job, and for each function or command line: jobs of one task each have nothing of
their own to go by. What was measured of another job is a guess, and said to be one: its arguments
may have been others. Nothing here may be relied on for more than how much to hand over at once, and
for what others are told of this peer's speed.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import islice
from typing import Final

from p2psched.core.kinds import blob_key, kind_name, number_of
from p2psched.model.ids import JobId
from p2psched.model.job import Work, blobs_of
from p2psched.model.load import TypeSpeed
from p2psched.model.load_news import WARM_MAX

KINDS_MAX: Final = 256  # of work whose time is known; what was measured longest ago is forgotten
# Weights of a measurement in the mean and in its spread, as TCP has them for round trips (Jacobson
# 1988): a mean that the newest one can't turn over, a spread that follows sooner.
MEAN_WEIGHT: Final = 1 / 8
SPREAD_WEIGHT: Final = 1 / 4


class _Kind:
    __slots__ = ("count", "mean_us", "newest_us", "spread_us")

    def __init__(self, task_us: int) -> None:
        self.newest_us = task_us  # the newest measurement counts half
        self.mean_us = float(task_us)
        self.spread_us = 0.0
        self.count = 0

    def measure(self, task_us: int, count: int) -> None:
        # One that takes long now and then is seldom thought to be quick, which is the safe side.
        self.newest_us = max(1, (self.newest_us + task_us) // 2)
        if not self.count:
            self.spread_us = task_us / 2
        else:
            off_us = task_us - self.mean_us
            # A mean of many tells more of the mean than a single one does, up to four times.
            self.mean_us += off_us * MEAN_WEIGHT * min(4, count)
            self.spread_us += (abs(off_us) - self.spread_us) * SPREAD_WEIGHT
        self.count += count


class Expectations:
    def __init__(self) -> None:
        self._jobs: dict[JobId, int] = {}
        self._kinds: dict[bytes, _Kind] = {}  # oldest first
        self._warm: dict[int, None] = {}  # likewise

    def of(self, job: JobId, work: Work) -> tuple[int | None, bool]:
        """Time of one task in us, at least 1, or None; and whether that is a guess."""
        known = self._jobs.get(job)
        if known is not None:
            return known, False
        kind = self._kinds.get(kind_name(work))
        return (None if kind is None else kind.newest_us), True

    def measured_ms(self, job: JobId) -> int | None:
        """Of a task of this job; None if none has ended here."""
        known = self._jobs.get(job)
        return None if known is None else max(1, known // 1000)

    def on_measured(self, job: JobId, work: Work, task_us: int, count: int = 1) -> None:
        """The mean of `count` tasks that have just ended. The newest counts most: half."""
        task_us = max(1, task_us)
        known = self._jobs.get(job)
        if known is None:
            self._note_warm(work)
        self._jobs[job] = task_us if known is None else max(1, (known + task_us) // 2)
        name = kind_name(work)
        kind = self._kinds.pop(name, None) or _Kind(task_us)
        kind.measure(task_us, count)
        self._kinds[name] = kind
        if len(self._kinds) > KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]

    def _note_warm(self, work: Work) -> None:
        """Tasks of it have run here, so its code and its data are here."""
        for ref in blobs_of(work)[:WARM_MAX]:
            key = blob_key(ref)
            self._warm.pop(key, None)
            self._warm[key] = None
            if len(self._warm) > WARM_MAX:
                del self._warm[next(iter(self._warm))]

    @property
    def warm(self) -> tuple[int, ...]:
        """Blobs, as gossip names them, of the jobs that ran here last: WARM_MAX at most."""
        return tuple(self._warm)

    def forget(self, job: JobId) -> None:
        """It has ended."""
        self._jobs.pop(job, None)

    def keep(self, jobs: Container[JobId]) -> None:
        """Forget all other jobs."""
        self._jobs = {job: us for job, us in self._jobs.items() if job in jobs}

    def speeds(self, most: int) -> tuple[TypeSpeed, ...]:
        """Of the kinds that were measured last, oldest first."""
        newest = list(islice(reversed(self._kinds.items()), most))
        return tuple(
            TypeSpeed(number_of(name), round(kind.mean_us), round(kind.spread_us), kind.count)
            for name, kind in reversed(newest)
        )

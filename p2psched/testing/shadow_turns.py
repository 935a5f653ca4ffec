"""The naive reading of jobs whose tasks hold a lock: one list a lock, in the order of asking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from p2psched.model.hold import Hold
from p2psched.model.ids import JobId
from p2psched.testing.promises import demand
from p2psched.testing.shadow_job import WAITING, ShadowJob

AHEAD: Final = 64  # of one job, more than it has tasks that run


class _Wish:
    def __init__(self, job: JobId) -> None:
        self.job = job
        self.is_had = False
        self.by: tuple[int, int] | None = None  # the grant and the task that have it


class Turns:
    """Who has which lock. `add` each job before `settle`; `start` what `may_start`."""

    def __init__(self, jobs: Mapping[JobId, ShadowJob]) -> None:
        self._jobs = jobs
        self._holding: dict[JobId, ShadowJob] = {}  # of these, those with a lock: in their order
        self._wishes: dict[str, list[_Wish]] = {}

    def add(self, name: JobId, job: ShadowJob) -> None:
        if job.spec.hold is not None:
            self._holding[name] = job
            self._wishes.setdefault(job.spec.hold.lock, [])

    def settle(self) -> None:
        """At the end of each command."""
        for name, job in list(self._holding.items()):
            if self._jobs.get(name) is not job:  # it is forgotten
                del self._holding[name]
            elif job.spec.hold is not None:
                self._settle(name, job, job.spec.hold)
        self._check()

    def _settle(self, name: JobId, job: ShadowJob, hold: Hold) -> None:
        wishes = self._wishes[hold.lock]
        for wish in [wish for wish in wishes if wish.job == name]:
            is_over = wish.by is not None and job.owner.get(wish.by[1]) != wish.by[0]
            if job.state != "running" or (is_over and not hold.in_order):
                self._drop(hold, wish)
            elif is_over:
                wish.by = None
        if job.state != "running" or job.open:
            return
        mine = [wish for wish in wishes if wish.job == name]
        idle = [wish for wish in mine if wish.by is None]
        waiting = sum(o == WAITING and i not in job.due for i, o in job.owner.items())
        wanted = min(waiting, hold.capacity, AHEAD)
        if hold.in_order:
            wanted = 1 - (len(mine) - len(idle))
        for wish in idle[max(wanted, 0) :]:
            self._drop(hold, wish)
        for _ in range(wanted - len(idle)):
            wishes.append(_Wish(name))
            self._give(hold)

    def _drop(self, hold: Hold, wish: _Wish) -> None:
        self._wishes[hold.lock].remove(wish)
        self._give(hold)

    def _give(self, hold: Hold) -> None:
        wishes = self._wishes[hold.lock]
        for wish in wishes:
            if sum(other.is_had for other in wishes) < hold.capacity:
                wish.is_had = True

    def may_start(self, name: JobId, job: ShadowJob, tasks: list[int]) -> list[int]:
        """Which of these, which wait."""
        hold = job.spec.hold
        if hold is None:
            return tasks
        ready = sum(wish.is_had and wish.by is None for wish in self._of(name, hold))
        if not hold.in_order:
            return tasks[:ready]
        if not ready or any(owner > 0 for owner in job.owner.values()):
            return []
        first = min(index for index, owner in job.owner.items() if owner == WAITING)
        return [first] if first in tasks else []

    def start(self, name: JobId, job: ShadowJob, grant: int, tasks: list[int]) -> None:
        hold = job.spec.hold
        if hold is None:
            return
        ready = [wish for wish in self._of(name, hold) if wish.is_had and wish.by is None]
        for wish, task in zip(ready, tasks, strict=False):
            wish.by = grant, task

    def _of(self, name: JobId, hold: Hold) -> list[_Wish]:
        return [wish for wish in self._wishes[hold.lock] if wish.job == name]

    def _check(self) -> None:
        """As the tasks have it that are owned, whatever was wished."""
        if not self._holding:
            return
        owned: Counter[str] = Counter()
        for job in self._holding.values():
            hold = job.spec.hold
            if hold is not None:
                owned[hold.lock] += sum(owner > 0 for owner in job.owner.values())
                demand(
                    owned[hold.lock] <= hold.capacity,
                    "P7",
                    f"{owned[hold.lock]} tasks hold {hold.lock}, which {hold.capacity} may",
                )

"""Jobs of a simulation whose tasks must not start twice, and persons who say what became of those
that are unknown.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from p2psched.model import chunks
from p2psched.model.job import JobSpec
from p2psched.model.once import Decide, Once, Start, Verdict
from p2psched.model.taskset import TaskSet
from p2psched.testing.once_referee import DECIDED
from p2psched.testing.sim_jobs import kills_none

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

JOBS_MAX: Final = 8
LOOK_MS: Final = 1_500  # between two looks of a person


class Persons:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, cluster: SimCluster, *, wanted: bool) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"persons {cluster.seed}")
        self._jobs_left = self._rng.choice((0, 0, JOBS_MAX)) * wanted
        self._has_begun = False
        if self._jobs_left:
            self.begin()

    def begin(self) -> None:
        """Somebody looks from now on, whether there are such jobs or not."""
        if not self._has_begun:
            self._has_begun = True
            self._later()

    def draw(self, spec: JobSpec) -> JobSpec:
        is_fit = spec.hold is None and kills_none(spec.name)
        if not self._jobs_left or not is_fit or self._rng.random() < 0.3:
            return spec
        self._jobs_left -= 1
        self._cluster.happened["job that starts once"] += 1
        return replace(spec, start=Start.ONCE)

    def _later(self) -> None:
        self._cluster.after(self._rng.expovariate(1 / LOOK_MS), self._look)

    def _look(self) -> None:
        shadow = self._cluster.referees.shadow
        for name, job in shadow.jobs.items():
            if job.unknown:
                some = [index for index in job.unknown if self._rng.random() < 0.7]
                verdict = self._rng.choice(tuple(Verdict))
                data = chunks.pack([DECIDED] * len(some))
                step = Decide(TaskSet.from_indices(some), verdict, "somebody", "", data)
                self._cluster.happened[f"unknown: {verdict.name}"] += 1
                self._cluster.ask(Once(name, step))
        self._later()

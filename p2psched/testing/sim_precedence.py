"""Jobs of a simulation that go before others, and long ones with checkpoints that make way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.needs import Needs
from p2psched.model.precedence import Precedence
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim_jobs import kills_none, may_hang, with_mean

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

JOBS_MAX: Final = 30
LOW_JOBS_MAX: Final = 4  # of those, jobs that make way
TASK_US: Final = 6_000_000  # of these: there must be something to wait for
TASKS: Final = (4, 8)
PRIORITIES: Final = (0, 1, 5)
GPUS: Final = Needs(gpus=2)  # all that a peer has: who wants them waits for an owner
RUNS_MS: Final = (0, 300, 2_000)


class Precedences:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, cluster: SimCluster, *, wanted: bool) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"precedence {cluster.seed}")
        self._jobs_left = self._rng.choice((0, 0, JOBS_MAX)) * wanted
        self._low_left = LOW_JOBS_MAX
        self.count = 0  # of tasks that make way

    def draw(self, spec: JobSpec) -> JobSpec:
        rng = self._rng
        if not self._jobs_left or rng.random() < 0.2:
            return spec
        self._jobs_left -= 1
        if spec.needs is None and not spec.policy and rng.random() < 0.5:
            spec = replace(spec, needs=GPUS)
        is_fit = isinstance(spec.work, ProgramWork) and spec.hold is None and not spec.start
        is_fit = is_fit and not (spec.backs_up or may_hang(spec.name) or spec.pace)
        if not self._low_left or not is_fit or not kills_none(spec.name):
            priority = rng.choice(PRIORITIES)
            self._cluster.happened["job with a priority"] += bool(priority)
            return replace(spec, precedence=Precedence(priority))
        self._low_left -= 1
        self._cluster.happened["job that makes way"] += 1
        tasks = TaskSet.of(0, rng.choice(TASKS))
        self.count += len(tasks)
        way = Precedence(rng.choice((-5, -5, 0)), True, rng.choice(RUNS_MS))
        name = with_mean(spec.name, TASK_US)
        return replace(spec, tasks=tasks, name=name, checkpoint="state", precedence=way)

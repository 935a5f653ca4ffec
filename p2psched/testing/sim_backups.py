"""Jobs of a simulation whose tasks run on several peers, or once more when they are late."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from p2psched.model.backing import Backing
from p2psched.model.job import JobSpec
from p2psched.testing.sim_jobs import kills_none, may_hang

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

JOBS_MAX: Final = 12
BACKINGS: Final = (
    Backing(replicas=2),
    Backing(replicas=2),
    Backing(replicas=3),
    Backing(speculate=True),
    Backing(replicas=2, speculate=True),
)
LATE_US_MAX: Final = 200_000  # a task on average, of jobs that speculate: late ones take far longer


class Backings:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, cluster: SimCluster, *, wanted: bool) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"backups {cluster.seed}")
        self._jobs_left = self._rng.choice((0, 0, JOBS_MAX)) * wanted

    def draw(self, spec: JobSpec) -> JobSpec:
        rng = self._rng
        is_fit = spec.hold is None and not spec.start and kills_none(spec.name)
        if not self._jobs_left or not is_fit or rng.random() < 0.3:
            return spec
        self._jobs_left -= 1
        backing = rng.choice(BACKINGS)
        if int(spec.name.split()[0]) > LATE_US_MAX or may_hang(spec.name):
            backing = replace(backing, speculate=False)
        self._cluster.happened["job with backups"] += 1
        return replace(spec, backing=backing)

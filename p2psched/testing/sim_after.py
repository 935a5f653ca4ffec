"""Jobs of a simulation that come after others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from p2psched.model.after import After
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

NEWEST: Final = 8  # they come after some of these: most of them have not ended yet


class Descents:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, cluster: SimCluster, *, wanted: bool) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"after {cluster.seed}")
        self._share = self._rng.choice((0.0, 0.0, 0.3, 0.7)) * wanted

    def draw(self, spec: JobSpec, before: Sequence[JobId]) -> JobSpec:
        """`before`: what was submitted, whether it was accepted or not."""
        rng = self._rng
        if not before or rng.random() >= self._share:
            return spec
        newest = before[-NEWEST:]
        parents = rng.sample(newest, min(len(newest), rng.choice((1, 1, 2, 3))))
        self._cluster.happened["job after others"] += 1
        return replace(spec, after=After(tuple(parents), rng.random() < 0.3))

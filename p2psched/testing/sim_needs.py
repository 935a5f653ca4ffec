"""Simulated jobs that choose their peers, and what these have. Whatever a job needs, each peer has:
else it would wait for one that is gone for good.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec

from p2psched.core.policies.registry import POLICIES
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.needs import Needs, Offers

CHOOSY_JOBS_MAX: Final = 12
ZONES: Final = 2
NEEDS: Final = (
    Needs(gpus=1),
    Needs(gpus=2, memory_mib=300),
    Needs(memory_mib=500),
    Needs(require=(("kind", "sim"),), memory_mib=200),
    Needs(prefer=(("zone", "1"),)),
    Needs(spread="zone"),
    Needs(steal=False),
)


def offers_of(number: int) -> Offers:
    """What the peer of this number has."""
    labels = (("kind", "sim"), ("zone", str(number % ZONES)))
    return Offers(labels, gpus=2, memory_mib=1_000, weight=1_000 * (1 + number % 3))


class Choices:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, seed: int, *, wanted: bool) -> None:
        self._rng = random.Random(f"needs {seed}")
        self._left = self._rng.choice((0, CHOOSY_JOBS_MAX)) * wanted

    def draw(self, spec: JobSpec, own: JobId, before: Sequence[JobId]) -> JobSpec:
        """The same, and something of where it may go."""
        rng = self._rng
        if not self._left or rng.random() < 0.3:
            return spec
        self._left -= 1
        needs = rng.choice((None, *NEEDS))
        if rng.random() < 0.3:
            apart = (own if rng.random() < 0.5 or not before else rng.choice(before),)
            needs = msgspec.structs.replace(needs or Needs(), apart=apart)
        policy = rng.choice(("", "unknown", *POLICIES))
        return msgspec.structs.replace(spec, policy=policy, needs=needs)

"""Bugs in what is made of gossip, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final
from unittest.mock import patch

from p2psched.core import coordinator
from p2psched.model.ids import PeerId
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def _never_forgives() -> Planted:
    doubted: set[PeerId] = set()

    def sticky(
        said: Set[PeerId], others: Set[PeerId], *, now_ms: int, heard_ms: Mapping[PeerId, int]
    ) -> frozenset[PeerId]:
        del others, now_ms, heard_ms
        doubted.update(said)
        return frozenset(doubted)

    return patch.object(coordinator, "to_shun", sticky)


GOSSIP_MUTANTS: Final = (
    Mutant(
        name="who was doubted once gets nothing any more",
        plant=_never_forgives,
        faults=Faults(doubt_every_ms=200, crash_every_ms=2_000, restart_ms_max=200),
        broken="L5",
        events=3_000,
        jobs_max=10,
    ),
)

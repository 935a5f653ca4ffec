"""Bugs in the watchdog, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core.raft.timing import Timing
from p2psched.core.watchdog import Found, Over, Sight, Watchdog
from p2psched.core.watching import Watching
from p2psched.model.execution import Standing
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def _sees_nothing() -> Planted:
    def blind(_dog: Watchdog, _now_ms: int, _sights: list[Sight]) -> list[Found | Over]:
        return []

    return patch.object(Watchdog, "look", blind)


def _knows_no_reasons() -> Planted:
    sights = Watching._sights

    def strict(watching: Watching, standing: Standing) -> list[Sight]:
        return [sight._replace(reason="") for sight in sights(watching, standing)]

    return patch.object(Watching, "_sights", strict)


STANDING: Final = Faults(stall_every_ms=150)
CALM: Final = Faults()

STALL_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=faults,
        broken="L5",
        timing=Timing(),
        events=4_000,
        jobs_max=40,
        hanging=True,
    )
    for name, plant, faults in (
        ("a watchdog sees nothing", _sees_nothing, STANDING),
        ("a watchdog knows no right reasons", _knows_no_reasons, CALM),
    )
)

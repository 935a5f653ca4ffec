"""Bugs in what makes way for others, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core.making_way import MakingWay
from p2psched.core.owned import Running
from p2psched.core.raft.timing import Timing
from p2psched.model.commands import GiveBack
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

CALM: Final = Faults(pause_every_ms=6_000, pause_ms_max=500, drop=0.01)


def _ends_whatever_runs() -> Planted:
    """Nobody looks whether a task may make way, and which is before which."""

    def victims(self: MakingWay, priority: int, now_ms: int) -> list[Running]:
        del priority, now_ms
        return [run for run in self._running.values() if not (run.moves or run.stopped)]

    return patch.object(MakingWay, "_victims", victims)


def _ends_equals() -> Planted:
    """Whoever waits goes before what runs."""
    _victims = MakingWay._victims

    def victims(self: MakingWay, priority: int, now_ms: int) -> list[Running]:
        return _victims(self, priority + 1, now_ms)

    return patch.object(MakingWay, "_victims", victims)


def _keeps_it() -> Planted:
    """What has made way is given back to nobody."""

    def take(self: MakingWay) -> list[GiveBack]:
        self._back = []
        return []

    return patch.object(MakingWay, "take", take)


def _mutant(name: str, plant: object, broken: str = "E12") -> Mutant:
    assert callable(plant)
    return Mutant(
        name=name,
        plant=plant,
        faults=CALM,
        broken=broken,
        timing=Timing(),
        peers=2,
        events=4_000,
        jobs_max=30,
        preempting=True,
    )


PREEMPTION_MUTANTS: Final = (
    _mutant("whatever runs makes way", _ends_whatever_runs),
    _mutant("a task makes way for its equals", _ends_equals),
    _mutant("what has made way is lost", _keeps_it, "L5"),
)

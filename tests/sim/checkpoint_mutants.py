"""Bugs in what a task goes on from, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core.raft.timing import Timing
from p2psched.core.resuming import Search, Take
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

# Owners die, and are soon back, or are cut off and go on saving.
LOSSES: Final = Faults(
    crash_every_ms=1_000,
    power_loss=0.2,
    restart_ms_max=3_000,
    cut_every_ms=2_000,
    cut_ms_max=6_000,
    cuts=("alone",),
    misplace_every_ms=1_000,
)


def _prefers_its_own() -> Planted:
    """Whoever has one asks nobody what is newer."""
    _best = Search._best

    def best(self: Search) -> Take | None:
        own = [head for head in self._found[self._me] if (self._me, head.key) not in self._bad]
        return Take(own[0], self._me) if own else _best(self)

    return patch.object(Search, "_best", best)


def _waits_for_nobody() -> Planted:
    """The first answer decides."""
    return patch("p2psched.core.resuming.FIND_MS", 0)


def _begins_anew_at_once() -> Planted:
    """If nobody who lives has any, those that are away are not waited for."""
    return patch("p2psched.core.resuming.PATIENCE_MS", 0)


def _mutant(name: str, plant: object, faults: Faults = LOSSES) -> Mutant:
    assert callable(plant)
    return Mutant(
        name=name,
        plant=plant,
        faults=faults,
        broken="E10",
        timing=Timing(),
        peers=4,
        events=4_000,
        jobs_max=12,
        saving=True,
    )


CHECKPOINT_MUTANTS: Final = (
    _mutant("an owner goes on from what it has itself", _prefers_its_own),
    _mutant("an attempt waits for nobody's answer", _waits_for_nobody),
    _mutant("a task begins anew while its owner restarts", _begins_anew_at_once),
)

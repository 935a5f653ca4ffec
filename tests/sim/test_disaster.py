"""Clusters that go on from one disk or from a backup lose nothing that is there, and hear nobody of
before; and the simulator would notice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from p2psched.testing.sim import SimulationError
from p2psched.testing.sim_disaster import simulate_disaster
from p2psched.testing.simulate import Options
from tests.sim.disaster_mutants import DISASTER_MUTANTS, DisasterMutant
from tests.sim.seeds import looking_at

SEEDS_MAX = 150  # of a planted bug; it takes a few of them
PAGE = (Path(__file__).resolve().parents[2] / "docs/simulation.md").read_text()
SHOWN = (
    *("went on: disk", "went on: backup", "restored twice", "strangers at the door"),
    *("late results", "jobs of before", "entries of before", "terms led", "power lost"),
    "exclusive tasks of before",
)


@looking_at(range(11, 16), range(16))
def test_what_is_left_goes_on_as_another_cluster(seeds: range) -> None:
    happened: Counter[str] = Counter()
    for seed in seeds:
        happened += simulate_disaster(seed).happened
    assert [what for what in SHOWN if not happened[what]] == []


def test_one_seed_is_one_run() -> None:
    options = Options(events=600)
    traces = [simulate_disaster(seed, options).trace for seed in (3, 3, 4)]
    assert traces[0] == traces[1] != traces[2]


def what_referees_say(mutant: DisasterMutant) -> str:
    with mutant.plant():
        for seed in (mutant.seed, *range(SEEDS_MAX)):
            try:
                simulate_disaster(seed)
            except SimulationError as exc:
                if mutant.broken in exc.why:  # else it shows in another way, too
                    return exc.why
    return "nothing"


@pytest.mark.parametrize("mutant", DISASTER_MUTANTS, ids=lambda mutant: mutant.name)
def test_the_simulator_notices_a_planted_bug(mutant: DisasterMutant) -> None:
    assert mutant.broken in what_referees_say(mutant)
    assert f"{mutant.name} | " in PAGE

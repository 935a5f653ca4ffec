"""Logs that are damaged while their peers are down: nothing is lost, and they come back whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from p2psched.testing.faults import Faults
from p2psched.testing.simulate import Options, simulate
from tests.sim.hurt_mutants import HURTING
from tests.sim.mutants import BEHIND, HASTY, OFTEN
from tests.sim.seeds import looking_at


@pytest.mark.parametrize("peers", [3, 5])
@looking_at(range(4), range(4, 10))
def test_no_promise_breaks_while_one_log_after_another_is_damaged(peers: int, seeds: range) -> None:
    happened = Counter[str]()
    for seed in seeds:
        happened += simulate(
            seed,
            Options(
                peers=peers, faults=HURTING, timing=HASTY, events=2_500, formed=True, jobs_max=4
            ),
        ).happened
    assert happened["logs damaged"] > 2 * len(seeds)
    assert happened["logs regained"] > len(seeds)


@looking_at(range(4), range(4, 8))
def test_nor_where_what_is_lost_is_in_snapshots_only(seeds: range) -> None:
    happened = Counter[str]()
    for seed in seeds:
        happened += simulate(
            seed,
            Options(
                peers=3,
                faults=replace(BEHIND, hurt=0.4),
                timing=HASTY,
                events=2_500,
                formed=True,
                jobs_max=20,
                snapshots=OFTEN,
            ),
        ).happened
    assert happened["logs regained"] > len(seeds) / 2
    assert happened["snapshot taken"] > len(seeds) / 2


def test_after_a_calm_night_with_one_damaged_disk_everybody_votes() -> None:
    """Crashes now and then, each with damage, and nothing else that goes wrong."""
    faults = Faults(crash_every_ms=1_500, hurt=1.0, power_loss=0.5)
    for seed in range(5):
        report = simulate(seed, Options(peers=3, faults=faults, formed=True, events=4_000))
        assert report.happened["logs damaged"] > 0
        assert report.happened["logs regained"] > 0

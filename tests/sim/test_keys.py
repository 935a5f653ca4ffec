"""Clients that act on keys in a simulation: all that they do happens once, and what they saw has an
order that explains it. What histories see alone is shown with the referee's account closed."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from p2psched.testing import sim_keys
from p2psched.testing.act_referee import ActReferee
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimulationError
from p2psched.testing.simulate import Options, simulate
from tests.sim.act_mutants import ACT_MUTANTS, LOSSY

HISTORY_SEEDS_MAX: Final = 60


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_keys, "SHARE", 1.0)


def test_in_bad_weather_all_that_clients_do_is_done_once() -> None:
    happened: Counter[str] = Counter()
    for seed in range(8):
        happened += simulate(seed, Options(jobs_max=4)).happened
    for what in (
        *("acts: PutKey", "acts: Transact", "acts: TakeLease", "acts: KeepLeases"),
        *("acts repeated", "races lost", "leases expired", "keys gone with a lease"),
        *("acts asked again", "acts too late", "changes refused"),
    ):
        assert happened[what] >= 3, what


@pytest.mark.wide
def test_a_leader_that_is_lost_often_ends_no_lease_early() -> None:
    harsh = Faults(crash_every_ms=1_500, crashes_max=30, restart_ms_max=2_000, drift_ppm=500)
    happened: Counter[str] = Counter()
    for seed in range(100, 106):
        happened += simulate(seed, Options(faults=harsh, jobs_max=4, peers=3)).happened
    assert happened["leases expired"] >= 3


def test_histories_alone_notice_a_swap_that_never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActReferee, "on_happened", lambda referee, happened: None)
    monkeypatch.setattr(sim_keys.KeyWork, "check_state", lambda work: None)
    blind = next(mutant for mutant in ACT_MUTANTS if "whatever its version" in mutant.name)
    options = Options(faults=LOSSY, jobs_max=4, peers=3)

    def said() -> str:
        for seed in range(HISTORY_SEEDS_MAX):
            try:
                simulate(seed, options)
            except (SimulationError, AssertionError) as error:
                return str(error)
        return "nothing"

    with blind.plant():
        assert "P7" in said()
    for seed in range(2):
        simulate(seed, options)

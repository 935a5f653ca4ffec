"""Peers that gossip about their load know in the end what counts of each other, at a bounded price,
whatever gets lost."""

from __future__ import annotations

import pytest

from p2psched.core.load_report import BURST_BYTES
from p2psched.testing.load_sim import LoadSim


@pytest.mark.parametrize(("peers", "loss"), [(3, 0.0), (10, 0.2), (25, 0.05)])
def test_once_nothing_more_happens_all_know_the_same(peers: int, loss: float) -> None:
    """A comparison finds what was lost."""
    sim = LoadSim(peers, seed=peers, jobs_per_min=lambda i: 6.0 * (i % 3), loss=loss)
    sim.begin()
    sim.run(30_000)
    assert sim.said_count > peers
    sim.idle = True
    sim.run_until(lambda: not sim.off(), within_ms=240_000, step_ms=1_000)
    assert not any(view.dropped["malformed"] for view in sim.views)
    assert not any(view.dropped["impossible"] for view in sim.views)
    assert not any(view.dropped["foreign"] for view in sim.views)


def test_who_comes_later_learns_of_all_although_nobody_says_anything_new() -> None:
    sim = LoadSim(6, seed=4, jobs_per_min=lambda _: 0.0)
    for peer in sim.peers[:5]:
        sim.start(peer.index, *([0] if peer.index else []))
    sim.run(5_000)
    sim.look()
    sim.idle = True
    sim.run(20_000)
    sim.start(5, 3)
    sim.run_until(lambda: not sim.off(), within_ms=90_000, step_ms=500)


def test_an_idle_group_of_twenty_costs_less_than_200_bytes_a_peer_and_second() -> None:
    sim = LoadSim(20, seed=2, jobs_per_min=lambda _: 0.0)
    sim.begin()
    sim.run(30_000)
    assert sim.bytes_per_s(120_000) < 200


def test_nobody_says_more_than_its_share_of_the_budget() -> None:
    sim = LoadSim(20, seed=3, jobs_per_min=lambda _: 60.0)
    sim.begin()
    before = [reporter.bytes_said for reporter in sim.reporters]
    sim.run(120_000)
    for reporter, was in zip(sim.reporters, before, strict=True):
        assert reporter.bytes_said - was <= BURST_BYTES + 120 * sim.share_bytes_s()
    assert any(reporter.held_back for reporter in sim.reporters)


def test_deltas_and_arrays_cost_a_fifth_of_json_at_twenty_peers() -> None:
    sim = LoadSim(20, seed=5, jobs_per_min=lambda _: 6.0)
    sim.begin()
    sim.run(60_000)
    assert sim.said_bytes * 5 <= sim.json_bytes
    assert sum(reporter.bytes_saved for reporter in sim.reporters) > 0

"""Who leads, and for how long: clean stops and slow disks, in virtual time."""

from __future__ import annotations

import pytest

from p2psched.model.commands import Outcome, Pin
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer
from tests.sim.test_cluster import leader_of, run_until_led

GAP_MS_MAX = 50  # without a leader, when the old one stops cleanly and messages take half of one
SLOW_US = 300_000
HAND_OVER_MS = 10_000


class Caller:
    """Has one command after another accepted, and counts them."""

    def __init__(self, cluster: SimCluster, *, pause_ms: int = 0) -> None:
        self._cluster = cluster
        self._pause_ms = pause_ms
        self._job = cluster.submit(sim_job(TaskSet.of(0, 1), mean_us=1_000))
        self.accepted = 0
        self.next()

    def next(self) -> None:
        self._cluster.ask(Pin(self._job, pinned=self.accepted % 2 == 0), self._on_answer)

    def _on_answer(self, _: Outcome) -> None:
        self.accepted += 1
        self._cluster.after(self._pause_ms, self.next)


def led_cluster(seed: int) -> tuple[SimCluster, SimPeer]:
    cluster = SimCluster(seed=seed, peers=3)
    leader = run_until_led(cluster)
    cluster.run_for(1_000)  # all voters have answered, and all peers are up to the ledger
    return cluster, leader


@pytest.mark.parametrize("seed", range(8))
def test_a_leader_that_stops_cleanly_is_followed_at_once(seed: int) -> None:
    cluster, old = led_cluster(seed)
    cluster.leave(old.number)
    cluster.run_until(lambda: not old.engine.raft.is_leader, within_ms=3_000)
    since_us, process = cluster.now_us, old.process
    cluster.run_until(lambda: leader_of(cluster) not in (None, old), within_ms=GAP_MS_MAX)
    assert cluster.now_us - since_us <= GAP_MS_MAX * 1000
    cluster.run_until(lambda: old.process != process, within_ms=3_000)


@pytest.mark.parametrize("seed", range(4))
def test_a_leader_whose_disk_is_slow_hands_over_and_does_not_get_it_back(seed: int) -> None:
    cluster, old = led_cluster(seed)
    caller = Caller(cluster, pause_ms=20)
    cluster.run_for(500)
    old.slow_sync_us = SLOW_US
    cluster.run_until(lambda: leader_of(cluster) not in (None, old), within_ms=HAND_OVER_MS)
    new = leader_of(cluster)
    cluster.run_for(10_000)
    assert leader_of(cluster) is new
    assert caller.accepted


def test_nobody_hands_over_where_all_disks_are_as_slow() -> None:
    cluster, old = led_cluster(5)
    for peer in cluster.peers:
        peer.slow_sync_us = SLOW_US
    caller = Caller(cluster, pause_ms=20)
    cluster.run_for(15_000)
    assert leader_of(cluster) is old
    assert caller.accepted


def test_a_follower_with_a_slow_disk_costs_little_throughput() -> None:
    accepted = {}
    for slow_us in (0, SLOW_US):
        cluster, leader = led_cluster(6)
        follower = next(peer for peer in cluster.peers if peer is not leader)
        follower.slow_sync_us = slow_us
        callers = [Caller(cluster) for _ in range(4)]
        cluster.run_for(1_000)
        accepted[slow_us] = sum(caller.accepted for caller in callers)
    assert accepted[SLOW_US] >= 0.8 * accepted[0]

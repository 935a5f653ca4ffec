"""Machines that sleep for ten minutes, with clocks that drift (L10): the others end what they had
begun, and who wakes acts on no grant, lease or lead of before. The referees watch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from p2psched.core.raft.timing import Timing
from p2psched.model.ids import JobId
from p2psched.model.once import Start
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer
from tests.sim.test_cluster import leader_of
from tests.sim.test_lives import finish

AWAY_MS = 600_000
SOON_MS = 60_000  # far less: nobody waits for who sleeps
SEEDS = (0, pytest.param(1, marks=pytest.mark.wide))


class Stage:
    """Three peers that all run tasks, ordinary ones and exclusive ones."""

    def __init__(self, seed: int) -> None:
        self.cluster = SimCluster(seed=seed, peers=3, faults=Faults(drift_ppm=500), timing=Timing())
        self.cluster.run_until(
            lambda: all(peer.alive and peer.state.level >= 6 for peer in self.cluster.peers),
            within_ms=20_000,
        )
        spec = sim_job(TaskSet.of(0, 3), mean_us=5_000_000)
        alone = replace(spec, start=Start.EXCLUSIVE, lease_ms=3_000)
        self.jobs: list[JobId] = [self.cluster.submit(one) for one in (alone, spec)]
        self.cluster.run_until(self._all_run, within_ms=20_000)
        leader = leader_of(self.cluster)
        assert leader is not None
        self.leader: SimPeer = leader

    def _all_run(self) -> bool:
        happened = self.cluster.happened
        began = happened["exclusive tasks begun"] and len(self.cluster.referees.starts) >= 4
        return bool(began) and all(peer.scheduler.owner.batches for peer in self.cluster.peers)

    def sleep(self, peers: Sequence[SimPeer]) -> None:
        for peer in peers:
            self.cluster.suspend(peer.number, AWAY_MS)

    def await_all(self) -> None:
        self.cluster.run_until(
            lambda: all(self.cluster.state_of(job) == "succeeded" for job in self.jobs),
            within_ms=SOON_MS,
        )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "an owner"])
def test_a_machine_that_slept_for_ten_minutes_is_missed_by_nobody_and_does_no_harm(
    seed: int, leads: bool
) -> None:
    stage = Stage(seed)
    cluster = stage.cluster
    sleeper = next(peer for peer in cluster.peers if (peer is stage.leader) == leads)
    terms = len(cluster.referees.leaders)
    stage.sleep([sleeper])
    stage.await_all()
    assert sleeper.paused
    assert len(cluster.referees.leaders) == terms + leads
    before_ms = sleeper.now_ms
    cluster.run_until(lambda: not sleeper.paused, within_ms=AWAY_MS)
    cluster.run_for(SOON_MS)
    assert sleeper.now_ms - before_ms > AWAY_MS - SOON_MS
    assert len(cluster.referees.leaders) == terms + leads, "who wakes deposes nobody"
    assert leader_of(cluster) is not sleeper or not leads
    finish(cluster)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_that_slept_for_ten_minutes_goes_on(seed: int) -> None:
    stage = Stage(seed)
    stage.sleep(stage.cluster.peers)
    stage.cluster.run_for(AWAY_MS)
    stage.await_all()
    finish(stage.cluster)

"""Peers whose disks are full for a time: their large results are made elsewhere."""

from __future__ import annotations

import pytest

from p2psched.model.commands import Acknowledged, Forget, Outcome
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_space import empty
from p2psched.testing.simulate import Options, simulate
from tests.sim.seeds import looking_at
from tests.sim.test_cluster import leader_of

TWENTY = TaskSet.of(0, 20)


@pytest.mark.parametrize("full", [0, 1, 2])
def test_large_results_of_a_full_peer_are_made_elsewhere(full: int) -> None:
    cluster = SimCluster(seed=full, peers=3)
    cluster.peers[full].is_full = True
    job = cluster.submit(sim_job(TWENTY, mean_us=20_000, large_permille=1_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)
    assert cluster.referees.shadow.counts["spaceless"] >= 1
    cluster.run_for(1_000)
    made_by = cluster.peers[full].scheduler.machine.jobs[job].finished_by
    assert sum(made_by.values()) == len(TWENTY)
    assert cluster.peers[full].id not in made_by
    cluster.heal()
    cluster.run_for(1_000)
    cluster.check_end()


def test_work_goes_on_where_it_stood_when_every_disk_has_room_again() -> None:
    cluster = SimCluster(seed=3, peers=3)
    for peer in cluster.peers:
        peer.is_full = True
    job = cluster.submit(sim_job(TWENTY, mean_us=20_000, large_permille=1_000))
    cluster.run_for(30_000)
    assert cluster.state_of(job) == "running"
    for peer in cluster.peers:
        peer.is_full = False
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=20_000)


def test_a_job_for_which_no_disk_ever_has_room_fails_in_the_end() -> None:
    cluster = SimCluster(seed=4, peers=1)
    cluster.peers[0].is_full = True
    job = cluster.submit(sim_job(TaskSet.of(0, 1), mean_us=20_000, large_permille=1_000))
    cluster.run_until(lambda: cluster.state_of(job) == "failed", within_ms=300_000)


@looking_at(range(4), range(4, 8))
def test_no_promise_breaks_while_disks_fill_and_empty(seeds: range) -> None:
    spaceless = 0
    for seed in seeds:
        report = simulate(seed, Options(faults=Faults(full_every_ms=500, full_ms_max=3_000)))
        spaceless += report.happened["tasks spaceless"]
    assert spaceless


@pytest.mark.parametrize("left", [0, 300])
def test_a_leader_whose_disk_takes_nothing_hands_over_and_catches_up(left: int) -> None:
    cluster = SimCluster(seed=5, peers=3)
    cluster.run_until(lambda: leader_of(cluster) is not None, within_ms=10_000)
    full = leader_of(cluster)
    assert full is not None
    full.disk.free_bytes = left
    jobs = []
    for _ in range(5):
        jobs.append(cluster.submit(sim_job(TWENTY, mean_us=20_000)))
        cluster.run_for(1_000)
    cluster.run_until(
        lambda: all(cluster.state_of(j) == "succeeded" for j in jobs), within_ms=9_000
    )
    leader = leader_of(cluster)
    assert leader is not None
    assert leader is not full
    assert full.alive
    machine = leader.scheduler.machine
    assert full.engine.raft.stable_index < leader.engine.raft.commit
    assert not machine.peers[full.id].live  # it can't learn of its grants
    empty(full)
    cluster.run_until(lambda: machine.peers[full.id].live, within_ms=5_000)
    cluster.run_for(1_000)
    assert cluster.happened["killed"] + cluster.happened["stopped by its disk"] == 0
    cluster.check_end()


def test_with_every_disk_full_somebody_still_leads_and_jobs_can_be_forgotten() -> None:
    cluster = SimCluster(seed=6, peers=3)
    cluster.run_until(lambda: leader_of(cluster) is not None, within_ms=10_000)
    job = cluster.submit(sim_job(TWENTY, mean_us=20_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)
    for peer in cluster.peers:
        peer.disk.free_bytes = 1_000_000
    cluster.run_for(5_000)
    said: list[Outcome] = []
    cluster.ask(Forget(job), said.append)
    cluster.run_until(lambda: said == [Acknowledged()], within_ms=10_000)

"""Tasks that run on several peers of a simulated cluster: nobody waits for who is lost, and late
ones are begun elsewhere, under the eyes of all referees."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.coordinator import DETECTION_WINDOW_MS
from p2psched.model.backing import Backing
from p2psched.model.job import JobSpec
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from tests.sim.seeds import looking_at
from tests.sim.test_cluster import run_until_led


def backed(count: int, mean_us: int, backing: Backing) -> JobSpec:
    return msgspec.structs.replace(sim_job(TaskSet.of(0, count), mean_us=mean_us), backing=backing)


def late_ones(seed: int, faults: Faults) -> int:
    """Begun once more in two jobs; all of it has ended, as the referees would have it."""
    cluster = SimCluster(seed=seed, peers=5, faults=faults)
    jobs = [cluster.submit(backed(20, 150_000, Backing(speculate=True))) for _ in range(2)]

    def all_done() -> bool:
        ended = all(cluster.state_of(job) == "succeeded" for job in jobs)
        return ended and cluster.referees.has_ended(cluster.peers)

    cluster.run_for(8_000)
    cluster.heal()
    cluster.run_until(all_done, within_ms=60_000)
    cluster.run_for(1_000)
    cluster.check_end()
    return cluster.referees.backups.late


def test_late_tasks_are_begun_elsewhere() -> None:
    assert sum(late_ones(seed, Faults()) for seed in range(8)) > 0


@looking_at(range(6), range(6, 20))
def test_late_tasks_are_begun_elsewhere_while_peers_come_and_go(seeds: range) -> None:
    faults = Faults(
        crash_every_ms=2_000,
        restart_ms_max=1_000,
        cut_every_ms=3_000,
        cut_ms_max=3_000,
        pause_every_ms=3_000,
        leave_every_ms=4_000,
        drop=0.02,
    )
    assert sum(late_ones(seed, faults) for seed in seeds) > 0


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_replicated_task_loses_no_time_with_its_owner(seed: int) -> None:
    """It takes five seconds. Beginning it anew would take as long again."""
    cluster = SimCluster(seed=seed, peers=3)
    run_until_led(cluster)
    job = cluster.submit(backed(1, 5_000_000, Backing(replicas=2)))
    cluster.run_until(lambda: len(cluster.referees.starts) == 2, within_ms=2_000)
    owner = cluster.referees.starts[0]
    number = next(peer.number for peer in cluster.peers if peer.id == owner.peer)
    cluster.run_for(1_000)
    assert cluster.state_of(job) == "running", "a seed that draws it longer"
    cluster.crash(number, power_lost=False)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=20_000)
    ended_ms = (cluster.now_us - owner.at_us) // 1_000
    longest_ms = 10_000  # of a task of this mean, as they are drawn
    assert ended_ms <= longest_ms + DETECTION_WINDOW_MS
    recorded = cluster.referees.shadow.jobs[job].said
    assert owner.grant not in {grant for grant, tasks in recorded.items() if tasks}

"""Long tasks with checkpoints make way for those of higher jobs, in simulated clusters that lose
peers, under the eyes of all referees."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from p2psched.core import preempting
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.needs import Needs
from p2psched.model.precedence import Precedence
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_jobs import Lengths, sim_job
from tests.sim.seeds import looking_at
from tests.sim.test_cluster import run_until_led

LONG_US = 20_000_000
PEERS = 4


def low(count: int, needs: Needs | None = None, *, may_end: bool = True) -> JobSpec:
    """Each task takes twenty seconds."""
    plain = sim_job(TaskSet.of(0, count), mean_us=LONG_US, lengths=Lengths.EVEN)
    way = Precedence(-1, may_end, 1_000)
    return replace(plain, checkpoint="state", precedence=way, needs=needs)


def high(count: int, needs: Needs | None = None, *, mean_us: int = 300_000) -> JobSpec:
    spec = sim_job(TaskSet.of(0, count), mean_us=mean_us, lengths=Lengths.EVEN)
    return replace(spec, precedence=Precedence(3), needs=needs)


def began_ms(cluster: SimCluster, job: JobId) -> list[int]:
    return [start.at_us // 1_000 for start in cluster.referees.starts if start.job == job]


def filled(
    seed: int, spec: JobSpec, faults: Faults | None = None, *, slots: int = 1
) -> tuple[SimCluster, JobId]:
    """A cluster with a slot for each task, all of which are taken."""
    cluster = SimCluster(seed=seed, peers=PEERS, slots=(slots,), faults=faults or Faults())
    if faults is None:
        run_until_led(cluster)
    job = cluster.submit(spec)
    if faults is None:
        cluster.run_until(lambda: len(began_ms(cluster, job)) == PEERS, within_ms=10_000)
        cluster.run_for(1_500)
    else:
        cluster.run_for(5_000)
    return cluster, job


def await_ends(cluster: SimCluster, jobs: Sequence[JobId]) -> None:
    def all_done() -> bool:
        ended = all(cluster.state_of(job) == "succeeded" for job in jobs)
        return ended and cluster.referees.has_ended(cluster.peers)

    cluster.run_until(all_done, within_ms=400_000)
    cluster.run_for(1_000)
    cluster.check_end()


@pytest.mark.parametrize("seed", range(4))
def test_a_high_task_takes_the_place_of_one_low_one_and_of_no_other(seed: int) -> None:
    cluster, long = filled(seed, low(PEERS))
    now_ms = cluster.now_us // 1_000
    quick = cluster.submit(high(1))
    cluster.run_until(lambda: bool(began_ms(cluster, quick)), within_ms=15_000)
    assert began_ms(cluster, quick)[0] - now_ms < 10_000, "the others take longer"
    await_ends(cluster, [long, quick])
    counts = cluster.referees.shadow.counts
    assert counts["preempted"] == 1, "of four"
    assert len(began_ms(cluster, long)) == PEERS + 1


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_preemptible_is_left_alone(seed: int) -> None:
    cluster, long = filled(seed, low(PEERS, may_end=False))
    quick = cluster.submit(high(1))
    await_ends(cluster, [long, quick])
    assert cluster.referees.shadow.counts["preempted"] == 0
    assert len(began_ms(cluster, long)) == PEERS


@pytest.mark.parametrize("seed", range(4))
def test_what_waits_for_a_gpu_has_one_that_uses_it_make_way(seed: int) -> None:
    """All peers have two, and a slot is free on each."""
    gpus = Needs(gpus=2)
    cluster, long = filled(seed, low(PEERS, gpus), slots=2)
    quick = cluster.submit(high(1, gpus))
    cluster.run_until(lambda: bool(began_ms(cluster, quick)), within_ms=15_000)
    await_ends(cluster, [long, quick])
    assert cluster.referees.shadow.counts["preempted"] == 1, "of four"


def test_a_coordinator_that_asks_whoever_runs_is_noticed() -> None:
    """By its words: their owners know better."""
    gpus = Needs(gpus=2)
    said = ""
    with patch.object(preempting, "_may_end", lambda _job: True):
        for seed in range(4):
            cluster, _ = filled(seed, low(PEERS, gpus, may_end=False), slots=2)
            quick = cluster.submit(high(1, gpus))
            try:
                await_ends(cluster, [quick])
            except SimulationError as error:
                said = error.why
                break
    assert "E12" in said


@looking_at(range(3), range(3, 12))
def test_high_ones_run_while_peers_come_and_go(seeds: range) -> None:
    faults = Faults(
        crash_every_ms=5_000,
        restart_ms_max=1_000,
        cut_every_ms=5_000,
        cut_ms_max=3_000,
        pause_every_ms=5_000,
        drop=0.02,
    )
    preempted = 0
    for seed in seeds:
        cluster, long = filled(seed, low(2 * PEERS), faults)
        jobs = [long]
        for _ in range(4):
            jobs.append(cluster.submit(high(2, mean_us=1_000_000)))
            cluster.run_for(6_000)
        cluster.heal()
        await_ends(cluster, jobs)
        preempted += cluster.referees.shadow.counts["preempted"]
    assert preempted > 0

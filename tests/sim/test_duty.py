"""Peers that may not work all the time, under virtual time: they keep to it, and others know."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from p2psched.core.duty import WHOLE, Duty
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, Seen
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import Lengths, sim_job

TASKS = 240
TASK_US = 50_000
SHARE = 250


def cluster_of(seed: int) -> tuple[SimCluster, list[PeerId]]:
    """Two peers of a slot each; the second may work a quarter of the time, and says so."""
    cluster = SimCluster(seed=seed, peers=3, slots=(1, 1, 0))
    cluster.run_until(lambda: cluster.referees.shadow.level == KNOWN_LEVEL, within_ms=10_000)
    cluster.peers[1].scheduler.owner.duty = Duty(1, SHARE)
    seen = {}
    for peer in cluster.peers[:2]:
        report = peer.scheduler.owner.load()
        seen[peer.id] = Seen(peer.id, 1, Liveness.ALIVE, 0, report)
    assert [one.load.duty for one in seen.values() if one.load] == [WHOLE, SHARE]
    for each in cluster.peers:
        each.space.seen = seen
    cluster.run_for(1_000)
    return cluster, [peer.id for peer in cluster.peers[:2]]


def run(cluster: SimCluster, *, policy: str = "") -> tuple[Counter[PeerId], int]:
    """Who ran how many, and how long all took, in ms."""
    spec = sim_job(TaskSet.of(0, TASKS), mean_us=TASK_US, lengths=Lengths.EVEN)
    spec = msgspec.structs.replace(spec, policy=policy)
    began_us = cluster.now_us
    job = cluster.submit(spec)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=120_000)
    starts = Counter(start.peer for start in cluster.referees.starts if start.job == job)
    return starts, (cluster.now_us - began_us) // 1000


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("policy", ["", "queue-length"])
def test_a_peer_works_its_share_and_others_what_it_leaves(seed: int, policy: str) -> None:
    cluster, (whole, part) = cluster_of(seed)
    ran, took_ms = run(cluster, policy=policy)
    assert ran[whole] + ran[part] == TASKS
    assert ran[part] * TASK_US / 1000 <= took_ms * SHARE / WHOLE + 600  # what it had saved up
    assert 0.12 < ran[part] / TASKS < 0.28, ran  # a fifth is right
    ideal_ms = TASKS * TASK_US / 1000 * WHOLE / (WHOLE + SHARE)
    assert took_ms < 1.15 * ideal_ms


@pytest.mark.parametrize("seed", range(3))
def test_where_nobody_else_is_all_of_it_is_done_in_time_and_nothing_counts_as_stalled(
    seed: int,
) -> None:
    cluster = SimCluster(seed=seed, peers=1, slots=(1,))
    cluster.run_for(1_000)
    cluster.peers[0].scheduler.owner.duty = Duty(1, 100)
    spec = sim_job(TaskSet.of(0, 40), mean_us=TASK_US, lengths=Lengths.EVEN)
    began_us = cluster.now_us
    job = cluster.submit(spec)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    took_ms = (cluster.now_us - began_us) / 1000
    assert 15_000 < took_ms < 21_000  # two seconds of work in a tenth of the time
    starts = [start for start in cluster.referees.starts if start.job == job]
    assert len(starts) == 40

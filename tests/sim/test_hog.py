"""S12 with stealing, under virtual time: `tests/integration/test_hog.py` has real hogs, and takes a
machine on which nothing else runs."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport, Seen
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import Lengths, sim_job

TASKS = 30
TASK_US = 300_000
LONG_US = 60_000_000
HOGGED, CALM = 850, 60  # per mille of a processor, by others


def cluster_of(seed: int, foreign: tuple[int, int]) -> tuple[SimCluster, list[PeerId]]:
    """Two peers of two slots on a processor each, and what others use of these."""
    cluster = SimCluster(seed=seed, peers=3, slots=(2, 2, 0))
    cluster.run_until(lambda: cluster.referees.shadow.level == KNOWN_LEVEL, within_ms=10_000)
    peers = [peer.id for peer in cluster.peers[:2]]
    seen = {}
    for peer, share in zip(peers, foreign, strict=True):
        report = LoadReport(number=1, slots=2, cores=1, foreign_cpu=share, cpu=share)
        seen[peer] = Seen(peer, 1, Liveness.ALIVE, 0, report)
    for one in cluster.peers:
        one.space.seen = seen
    cluster.run_for(1_000)
    return cluster, peers


def run(cluster: SimCluster, policy: str) -> Counter[PeerId]:
    """Tasks that only wait take as long anywhere. Who ran how many."""
    spec = sim_job(TaskSet.of(0, TASKS), mean_us=TASK_US, lengths=Lengths.EVEN)
    policy = policy if policy != "adaptive" else ""
    job = cluster.submit(msgspec.structs.replace(spec, policy=policy))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    return Counter(start.peer for start in cluster.referees.starts if start.job == job)


@pytest.mark.parametrize("policy", ["adaptive", "node-load", "queue-length"])
@pytest.mark.parametrize("seed", range(5))
def test_most_tasks_go_elsewhere_while_others_use_the_processor(seed: int, policy: str) -> None:
    cluster, (hogged, calm) = cluster_of(seed, (HOGGED, CALM))
    if policy == "queue-length":  # it pushes half to each, whoever uses the machines
        assert run(cluster, policy)[hogged] > TASKS / 4
        return
    for _ in range(2):
        ran = run(cluster, policy)
        assert ran[calm] > 2 * ran[hogged], ran


@pytest.mark.parametrize("policy", ["adaptive", "node-load"])
def test_equals_share_equally_whether_others_use_both_or_none(policy: str) -> None:
    for share in (HOGGED, CALM):
        cluster, (one, two) = cluster_of(1, (share, share))
        ran = run(cluster, policy)
        assert abs(ran[one] - ran[two]) <= 4, ran


@pytest.mark.parametrize("policy", ["adaptive", "node-load"])
def test_no_slot_stands_free_for_long_while_something_waits(policy: str) -> None:
    cluster, _ = cluster_of(2, (HOGGED, HOGGED))
    spec = sim_job(TaskSet.of(0, 4), mean_us=LONG_US, lengths=Lengths.EVEN)
    job = cluster.submit(
        msgspec.structs.replace(spec, policy=policy if policy != "adaptive" else "")
    )

    def begun() -> Counter[PeerId]:
        return Counter(start.peer for start in cluster.referees.starts if start.job == job)

    cluster.run_until(lambda: begun().total() == 4, within_ms=5_000)
    assert set(begun().values()) == {2}

"""Tasks that kill their peers, in simulated clusters (E2)."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from p2psched.core import poison
from p2psched.core.jobs import SUSPECT_DEATHS
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.poison import POISON_DEATHS
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.once import LEASE_MS_MIN, Start
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.simulate import Options, simulate
from tests.sim.seeds import looking_at

WITHIN_MS = 120_000


def run_poison(
    seed: int, *, peers: int, tasks: int, permille: int, start: Start = Start.LEAST
) -> tuple[SimCluster, JobId]:
    """A job of which some tasks kill their peers, until it has ended; nothing else goes wrong."""
    cluster = SimCluster(seed=seed, peers=peers)
    cluster.referees.poison.strict = True
    spec = sim_job(TaskSet.of(0, tasks), mean_us=50_000, kill_permille=permille)
    if start is Start.EXCLUSIVE:
        cluster.run_until(lambda: knows_all(cluster), within_ms=20_000)
        spec = replace(spec, start=start, lease_ms=LEASE_MS_MIN)
    job = cluster.submit(spec)
    cluster.run_until(
        lambda: cluster.state_of(job) in {"succeeded", "failed"}, within_ms=WITHIN_MS, every=10
    )
    return cluster, job


def knows_all(cluster: SimCluster) -> bool:
    return all(peer.alive and peer.state.level == KNOWN_LEVEL for peer in cluster.peers)


@pytest.mark.parametrize("start", [Start.LEAST, Start.EXCLUSIVE])
@pytest.mark.parametrize("peers", [1, 2, 3, 5])
def test_a_task_that_always_kills_its_peer_has_failed_after_exactly_three_deaths(
    peers: int, start: Start
) -> None:
    cluster, job = run_poison(1, peers=peers, tasks=1, permille=1000, start=start)
    assert cluster.happened["killed by a task"] == POISON_DEATHS
    assert cluster.referees.shadow.jobs[job].causes == {0: Cause.PEER_LOST}


@pytest.mark.parametrize("peers", [1, 3, pytest.param(5, marks=pytest.mark.wide)])
def test_the_tasks_beside_it_succeed_and_few_peers_die_of_it(peers: int) -> None:
    seen: Counter[int] = Counter()
    for seed in range(12):
        cluster, job = run_poison(seed, peers=peers, tasks=40, permille=40)
        twin = cluster.referees.shadow.jobs[job]
        killers = {i for i in twin.owner if cluster.referees.poison.kills(job, i)}
        assert twin.failed == killers
        assert set(twin.causes) == set(range(40))
        most = len(killers) * (SUSPECT_DEATHS + POISON_DEATHS)
        assert len(killers) * POISON_DEATHS <= cluster.happened["killed by a task"] <= most
        seen[len(killers)] += 1
    assert len(seen) > 2


def test_the_exclusive_tasks_beside_it_succeed() -> None:
    cluster, job = run_poison(2, peers=3, tasks=12, permille=100, start=Start.EXCLUSIVE)
    twin = cluster.referees.shadow.jobs[job]
    killers = {i for i in twin.owner if cluster.referees.poison.kills(job, i)}
    assert killers
    assert twin.failed == killers
    assert all(twin.causes[index] is Cause.PEER_LOST for index in killers)


def test_a_planted_bug_that_blames_no_lapsed_lease_is_seen() -> None:
    with (
        patch.object(poison, "lapse", lambda s, job, record: EMPTY),
        pytest.raises(SimulationError, match="P6"),
    ):
        run_poison(1, peers=3, tasks=1, permille=1000, start=Start.EXCLUSIVE)


@looking_at(range(5), range(5, 15))
def test_where_nothing_else_dies_no_innocent_task_is_blamed(seeds: range) -> None:
    """The referee is strict then."""
    blamed = 0
    for seed in seeds:
        options = Options(faults=Faults(), events=2_500, preempting=False)  # in plain order
        blamed += simulate(seed, options).happened["tasks blamed"]
    assert blamed > 0

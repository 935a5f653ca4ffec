"""Followers in simulation: what they start is theirs, all ends, and no leader feels them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from p2psched.core.feed import SPARES
from p2psched.model.ids import PeerId
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_follower import Followers
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_world import Process
from p2psched.testing.simulate import Options, simulate
from tests.sim.feed_mutants import FEED_MUTANTS

HOLDERS = 3 + SPARES
JOBS = 100
TASKS_A_SLOT = 20
MEAN_US = 500_000
PAUSE_MS = 50
NOTICING = (7_300_145, 7_300_011)  # seeds that show a planted bug are tried before the others
SEEDS_MAX = 40  # until a planted bug shows
GROWTH_MAX = 1.05  # from 10 followers to 1,000


class Counting(SimCluster):
    """Counts what each peer says and hears."""

    def __init__(self, *, seed: int) -> None:
        self.said: dict[PeerId, tuple[int, int]] = {}
        super().__init__(seed=seed, peers=HOLDERS, slots=(0,), formed=False)

    def send(self, sender: Process, to: PeerId, data: bytes) -> None:
        for peer in (sender.id, to):
            count, size = self.said.get(peer, (0, 0))
            self.said[peer] = count + 1, size + len(data)
        super().send(sender, to, data)


@dataclass(frozen=True)
class Cost:
    """Of the leader, for each entry that was committed meanwhile."""

    messages: float
    size: float
    fed: int  # followers that it feeds itself


def cost_of(followers: int) -> Cost:
    """The same jobs at the same pace, run by followers alone."""
    cluster = Counting(seed=5)
    crowd = Followers(cluster, followers)
    cluster.run_until(
        lambda: (
            len(cluster.newest_group().voters) == 3
            and len(cluster.newest_group().learners) == SPARES
        ),
        within_ms=20_000,
    )
    cluster.run_until(lambda: not crowd.is_busy, within_ms=20_000, every=100)
    cluster.run_for(5_000)  # whoever was fed by the leader at first has gone elsewhere
    leader = next(peer for peer in cluster.peers if peer.engine.raft.is_leader)
    entries, (messages, size) = len(cluster.referees.committed), cluster.said[leader.id]
    jobs = []
    for _ in range(JOBS):
        jobs.append(cluster.submit(sim_job(TaskSet.of(0, 2), mean_us=10_000)))
        cluster.run_for(PAUSE_MS)
    cluster.run_until(
        lambda: all(cluster.state_of(job) == "succeeded" for job in jobs), within_ms=20_000
    )
    entries = len(cluster.referees.committed) - entries
    assert entries >= 2 * JOBS
    assert leader.engine.raft.is_leader
    after = cluster.said[leader.id]
    return Cost(
        (after[0] - messages) / entries,
        (after[1] - size) / entries,
        leader.scheduler.feeding.feeder.followers,
    )


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(100, marks=pytest.mark.wide),
        pytest.param(1_000, marks=pytest.mark.long),
    ],
)
def test_a_leader_pays_no_more_for_many_followers_than_for_ten(count: int) -> None:
    few, many = cost_of(10), cost_of(count)
    print(few, many)
    assert (few.fed, many.fed) == (0, 0)
    assert many.messages <= few.messages * GROWTH_MAX, (few, many)
    assert many.size <= few.size * GROWTH_MAX, (few, many)


@pytest.mark.parametrize(
    "count",
    [1, 3, pytest.param(10, marks=pytest.mark.wide), pytest.param(50, marks=pytest.mark.long)],
)
def test_a_job_takes_little_longer_than_its_tasks_on_all_slots(count: int) -> None:
    """The same settings whatever the size: the group of voters stays small, all slots are busy."""
    cluster = Counting(seed=5)
    crowd = Followers(cluster, count)
    cluster.run_until(lambda: len(cluster.newest_group().learners) > 0, within_ms=20_000)
    cluster.run_until(lambda: not crowd.is_busy, within_ms=20_000, every=100)
    slots = sum(follower.slots for follower in crowd.all)
    began_us = cluster.now_us
    job = cluster.submit(sim_job(TaskSet.of(0, TASKS_A_SLOT * slots), mean_us=MEAN_US))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    ideal_us = TASKS_A_SLOT * MEAN_US
    assert cluster.now_us - began_us <= ideal_us / 0.8
    assert len(cluster.newest_group().voters) <= 5


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(7_100_000, 7_100_012))
def test_followers_start_only_what_is_theirs_and_all_ends(seed: int) -> None:
    report = simulate(seed, Options(followers=3))
    assert report.happened["followers"] == 3


def test_no_promise_breaks_while_followers_work_and_are_hurt() -> None:
    reports = [simulate(seed, Options(followers=3)) for seed in range(7_100_020, 7_100_028)]
    assert {report.happened["followers"] for report in reports} == {3}
    started = sum(report.happened["started by followers"] for report in reports)
    assert started > 50
    for what in ("killed", "paused", "cut off"):
        assert sum(report.happened[f"followers {what}"] for report in reports) > 5, what


@pytest.mark.parametrize("name", FEED_MUTANTS)
def test_a_planted_bug_of_following_is_noticed(name: str) -> None:
    plant, broken = FEED_MUTANTS[name]
    with plant(), pytest.raises(SimulationError) as noticed:
        _simulate_many()
    assert f"{broken}:" in noticed.value.why


def _simulate_many() -> None:
    for seed in (*NOTICING, *range(7_300_000, 7_300_000 + SEEDS_MAX)):
        simulate(seed, Options(followers=3))

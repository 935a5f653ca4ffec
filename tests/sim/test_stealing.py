"""Work goes to who has none: peers that come, peers that go, many thieves and one victim."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.commands import Place
from p2psched.model.ids import JobId
from p2psched.model.taskset import TaskSet
from p2psched.testing import sim_stealing
from p2psched.testing.shadow_job import WAITING
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_follower import Followers
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer

TASK_US = 100_000
TASKS = 1_500
SPREAD_MS = 2_000
SPREAD = 0.8  # of what would be theirs if all had the same
PULL_OVER_IDEAL = 1.4  # tasks take 0 to 200 ms, and who is asked answers in pieces
WINDOW_MS = 4_000  # of detection, a look and two commands


def busy(seed: int, *, peers: int, tasks: int) -> tuple[SimCluster, JobId, SimPeer]:
    """All that waits of a job belongs to one peer."""
    cluster = SimCluster(seed=seed, peers=peers, slots=(1,))
    cluster.run_until(lambda: cluster.referees.shadow.level == KNOWN_LEVEL, within_ms=10_000)
    job = cluster.submit(sim_job(TaskSet.of(0, tasks), mean_us=TASK_US))
    cluster.run_until(lambda: cluster.state_of(job) == "running", within_ms=5_000)
    victim = cluster.peers[seed % peers]
    incarnation = victim.scheduler.info.incarnation
    cluster.ask(Place(job, TaskSet.of(0, tasks), victim.id, incarnation))
    cluster.run_until(lambda: WAITING not in owners(cluster, job), within_ms=5_000)
    return cluster, job, victim


def owners(cluster: SimCluster, job: JobId) -> Counter[object]:
    """Of the tasks that have not ended."""
    shadow = cluster.referees.shadow
    found: Counter[object] = Counter()
    for grant in shadow.jobs[job].owner.values():
        if grant > 0:
            found[shadow.holders[grant][0]] += 1
        elif grant == WAITING:
            found[WAITING] += 1
    return found


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.wide) for n in range(1, 4))]
)
def test_work_goes_to_peers_that_come_and_away_from_those_that_go(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(sim_stealing, "STALE", 0)
    monkeypatch.setattr(sim_stealing, "WRONG", 0)
    cluster, job, _ = busy(seed, peers=3, tasks=TASKS)
    followers = Followers(cluster, 4)
    for follower in followers.all:
        follower.slots = 1
    shadow = cluster.referees.shadow
    new = [follower.id for follower in followers.all]
    cluster.run_until(lambda: all(peer in shadow.live for peer in new), within_ms=10_000)
    cluster.run_for(SPREAD_MS)
    owned = owners(cluster, job)
    assert all(owned[peer] for peer in new)
    assert sum(owned[peer] for peer in new) >= SPREAD * owned.total() * 4 / 7
    gone = followers.all[:2]
    lost = {
        index: grant
        for index, grant in shadow.jobs[job].owner.items()
        if grant > 0 and shadow.holders[grant][0] in {follower.id for follower in gone}
    }
    assert lost
    for follower in gone:
        follower.kill()
    cluster.run_for(WINDOW_MS)
    now = shadow.jobs[job].owner
    assert all(now[index] != grant for index, grant in lost.items())
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    cluster.run_for(1_000)
    cluster.check_end()


@pytest.mark.parametrize("seed", range(3))
def test_many_thieves_share_what_one_peer_has(seed: int) -> None:
    """And it is not asked for more than it can give."""
    cluster, job, victim = busy(seed, peers=3, tasks=300)
    followers = Followers(cluster, 20)
    new = {follower.id for follower in followers.all}
    cluster.run_until(lambda: new <= cluster.referees.shadow.live.keys(), within_ms=10_000)
    cluster.run_for(SPREAD_MS)
    owned = owners(cluster, job)
    busy_ones = sum(owned[peer] > 0 for peer in new)
    if owned.total() >= len(new) * 2:
        assert busy_ones >= len(new) * SPREAD
        assert owned[victim.id] <= owned.total() / 4
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    begun = Counter((start.job, start.index) for start in cluster.referees.starts)
    assert set(begun.values()) == {1}
    moved = cluster.referees.shadow.counts["moved"]
    assert moved <= 300 * 4, "each task moves a few times at most"
    assert cluster.happened["steals asked"] <= moved + 40 * len(new)


@pytest.mark.parametrize("followers", [0, 3])
@pytest.mark.parametrize("seed", range(2))
def test_pull_alone_keeps_everybody_busy(seed: int, followers: int) -> None:
    """Nothing is pushed: without a question nobody gets anything."""
    cluster = SimCluster(seed=seed, peers=4, slots=(1,))
    crowd = Followers(cluster, followers)
    for follower in crowd.all:
        follower.slots = 1
    shadow = cluster.referees.shadow
    new = {follower.id for follower in crowd.all}
    cluster.run_until(
        lambda: shadow.level == KNOWN_LEVEL and new <= shadow.live.keys(), within_ms=10_000
    )
    tasks = 60 * (4 + followers)
    spec = sim_job(TaskSet.of(0, tasks), mean_us=TASK_US)
    job = cluster.submit(msgspec.structs.replace(spec, policy="pull"))
    began_us = cluster.now_us
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    ideal_us = 60 * TASK_US
    assert cluster.now_us - began_us <= ideal_us * PULL_OVER_IDEAL
    ran = Counter(start.peer for start in cluster.referees.starts)
    assert set(ran) == {*new, *(peer.id for peer in cluster.peers)}
    assert min(ran.values()) >= 30

"""A simulated peer on which every task fails at once eats little, and is back once it is sound."""

from __future__ import annotations

import pytest

from p2psched.core.feed import Say
from p2psched.core.quarantine import Quarantine
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.steal_messages import Gives, Steal
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_checkpoints import SavingExecutor
from p2psched.testing.sim_executor import SimExecutor, TasksEnd, _Run
from p2psched.testing.sim_follower import Followers
from p2psched.testing.sim_jobs import sim_job

TASKS = 300
WITHIN_MS = 240_000
SOON_MS = 20_000


class Hole(SimExecutor):
    """One task after another has no program."""

    def _begin(self, run: _Run) -> None:
        index = run.left.pop(0)
        run.now = [(index, Cause.NOT_STARTABLE, 500)]
        self._on_start(run.batch, index)
        self._later(500, TasksEnd(run.batch.id))


class PeerHole(Hole, SavingExecutor):
    """Of a peer that holds the ledger."""


def with_a_hole(seed: int) -> tuple[SimCluster, JobId]:
    cluster = SimCluster(seed=seed, peers=3)
    cluster.run_for(3_000)
    cluster.peers[seed % 3].executor.__class__ = PeerHole
    spec = sim_job(TaskSet.of(0, TASKS), mean_us=30_000, retries=3)
    job = cluster.submit(spec)
    ended = {"succeeded", "failed"}
    cluster.run_until(lambda: cluster.state_of(job) in ended, within_ms=WITHIN_MS, every=10)
    return cluster, job


def failed(cluster: SimCluster, job: JobId) -> int:
    return len(cluster.referees.shadow.jobs[job].failed)


def stories(cluster: SimCluster) -> list[dict[PeerId, str]]:
    return [peer.scheduler.stories() for peer in cluster.peers]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(n, marks=pytest.mark.wide) for n in range(2, 6))]
)
def test_nearly_all_tasks_succeed_elsewhere(seed: int) -> None:
    cluster, job = with_a_hole(seed)
    assert failed(cluster, job) <= TASKS // 50
    hole = cluster.peers[seed % 3]
    assert all(set(story) == {hole.id} for story in stories(cluster)), "all have seen the same"


def test_without_quarantine_it_eats_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = (frozenset[PeerId](), frozenset[PeerId]())
    monkeypatch.setattr(Quarantine, "shut", lambda *_: nobody)
    cluster, job = with_a_hole(1)
    assert failed(cluster, job) > TASKS // 2


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.wide) for n in range(1, 3))]
)
def test_once_it_is_sound_it_is_back(seed: int) -> None:
    cluster, _ = with_a_hole(seed)
    cluster.peers[seed % 3].executor.__class__ = SavingExecutor
    job = cluster.submit(sim_job(TaskSet.of(0, 500), mean_us=200_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=WITHIN_MS, every=10)
    assert not any(stories(cluster))


def test_a_follower_that_is_one_is_out_for_other_followers_too() -> None:
    cluster = SimCluster(seed=4, peers=3, slots=(1,))
    hole, other = Followers(cluster, 2).all
    cluster.run_until(
        lambda: all(f.alive and f.follower.is_known for f in (hole, other)), within_ms=SOON_MS
    )
    hole.executor.__class__ = Hole
    job = cluster.submit(sim_job(TaskSet.of(0, TASKS), mean_us=100_000, retries=3))
    cluster.run_until(lambda: hole.follower.shut == frozenset({hole.id}), within_ms=SOON_MS)
    cluster.run_until(lambda: hole.id in other.follower.shut, within_ms=SOON_MS)
    asked, owned = hole.follower.stealing.thief.requests, hole.follower.owner.moved_here
    other.follower.stealing.on_message(other.now_ms, hole.id, Steal(1, 1, 9))
    _, answers = other.follower.stealing.give(
        other.follower.info, gives_nothing=False, shunned=other.follower.shut
    )
    said = [say.message for say in answers if isinstance(say, Say)]
    assert next(one for one in said if isinstance(one, Gives)).count == 0
    cluster.run_for(5_000)
    assert hole.follower.stealing.thief.requests == asked, "it steals no more"
    assert hole.follower.owner.moved_here == owned
    cluster.run_until(lambda: cluster.state_of(job) != "running", within_ms=WITHIN_MS, every=10)
    assert failed(cluster, job) <= TASKS // 50

"""A peer whose work stands still finds that by itself, says so, and heals it; one whose work does
not says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.placement import Candidate
from p2psched.core.policies.base import Ask, Notes, Shares
from p2psched.core.policies.registry import POLICIES
from p2psched.core.quarantine import PAUSE_MS
from p2psched.model.ids import JobId
from p2psched.model.stalls import STALL_MS, Fault
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_follower import Followers
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_stalls import Anybody, mend, owner_of, plant

TASK_US = 400_000
TASKS = 60
SHORT_US = 15_000
SHORT_TASKS = 300
CALM_MS = 60_000
FAULTS = {
    "missed": (Fault.EXECUTOR, 1),
    "hosts": (Fault.EXECUTOR, 2),
    "all": (Fault.EXECUTOR, 3),
    "lost batch": (Fault.EXECUTOR, 1),
    "forgotten grant": (Fault.GRANT, 1),
}


def working(peers: int, *, seed: int = 3, short: bool = False) -> tuple[SimCluster, JobId]:
    """A cluster with a job of which every peer has begun something. Of `short` tasks batches stand
    ready."""
    cluster = SimCluster(seed=seed, peers=peers)
    cluster.run_until(lambda: cluster.referees.shadow.level == KNOWN_LEVEL, within_ms=10_000)
    tasks, mean_us = (SHORT_TASKS, SHORT_US) if short else (TASKS, TASK_US)
    job = cluster.submit(sim_job(TaskSet.of(0, tasks), mean_us=mean_us))
    cluster.run_until(lambda: all(map(is_busy, cluster.peers)), within_ms=10_000)
    return cluster, job


def is_busy(peer: Anybody) -> bool:
    owner = owner_of(peer)
    return owner.has_queue and bool(owner.batches)


def stall(cluster: SimCluster, peer: Anybody, kind: str) -> None:
    """As soon as there is something that can stand still so."""
    cluster.run_until(lambda: plant(peer, kind), within_ms=20_000)
    cluster.stalls.on_planted(peer, kind)


@pytest.mark.parametrize(
    ("kind", "peers"), [*((kind, 1) for kind in FAULTS), ("all", 3), ("forgotten grant", 3)]
)
def test_what_stands_still_is_found_and_healed(kind: str, peers: int) -> None:
    fault, step = FAULTS[kind]
    cluster, job = working(peers, short=kind == "lost batch")
    peer = cluster.peers[-1]
    stall(cluster, peer, kind)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    cluster.run_for(3 * STALL_MS)
    status = peer.scheduler.watching.status()
    assert (status.found, status.healed, status.now) == (1, 1, ()), status
    assert cluster.happened[f"stall found: {fault}"] == 1
    over = [noticed for noticed in cluster.stalls.noticed if noticed.what == "over"]
    assert [noticed.step for noticed in over] == [step], over


def test_what_no_step_heals_is_given_to_others_and_the_peer_is_left_alone() -> None:
    cluster, job = working(3)
    peer = cluster.peers[-1]
    stall(cluster, peer, "broken")
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    assert owner_of(peer).held() == {}
    leader = next(p for p in cluster.peers if p.scheduler.coordinates)
    assert "for others" in leader.scheduler.stories()[peer.id]
    more = cluster.submit(sim_job(TaskSet.of(0, 6), mean_us=TASK_US))
    cluster.run_until(lambda: cluster.state_of(more) == "succeeded", within_ms=PAUSE_MS // 2)
    assert peer.executor.stalled, "nobody has mended it, and nobody had to wait for it"


def test_a_peer_that_was_mended_is_used_again() -> None:
    cluster, job = working(3)
    peer = cluster.peers[-1]
    stall(cluster, peer, "broken")
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    mend(peer)
    cluster.run_for(PAUSE_MS)
    before = len(cluster.referees.starts)
    cluster.submit(sim_job(TaskSet.of(0, TASKS), mean_us=TASK_US))
    cluster.run_until(
        lambda: any(start.peer == peer.id for start in cluster.referees.starts[before:]),
        within_ms=PAUSE_MS,
    )


def test_a_miscounted_slot_is_found() -> None:
    cluster, job = working(2)
    peer = cluster.peers[-1]
    cluster.stalls.on_planted(peer, "miscounted")
    owner_of(peer)._busy += 100
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    assert cluster.happened["stall found: queue"] == 1


@pytest.mark.parametrize("kind", ["hosts", "all"])
def test_a_follower_finds_it_as_well(kind: str) -> None:
    cluster, job = working(3)
    followers = Followers(cluster, 1)
    (follower,) = followers.all
    cluster.run_until(lambda: follower.alive and is_busy(follower), within_ms=20_000)
    stall(cluster, follower, kind)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    cluster.run_for(3 * STALL_MS)
    status = follower.follower.watching.status()
    assert (status.found, status.healed) == (1, 1), status


class Nobody:
    """A user's policy that forgot to give anything to anybody."""

    name = "nobody"
    summary = "nothing to nobody"
    is_late = True

    def share(self, _ask: Ask, _peers: Sequence[Candidate], _notes: Notes) -> Shares:
        return []

    def score(self, _ask: Ask, _peer: Candidate) -> float:
        return 0.0


def test_a_policy_that_places_nothing_is_found_and_another_stands_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = SimCluster(seed=5, peers=3)
    cluster.run_until(lambda: cluster.referees.shadow.level == KNOWN_LEVEL, within_ms=10_000)
    for peer in cluster.peers:
        cluster.stalls.on_planted(peer, "policy")
        chooser = peer.scheduler._coordinator.chooser
        monkeypatch.setattr(chooser, "policies", {**POLICIES, "nobody": Nobody()})
    spec = sim_job(TaskSet.of(0, 6), mean_us=TASK_US)
    job = cluster.submit(msgspec.structs.replace(spec, policy="nobody"))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    assert cluster.happened["stall found: placement"] == 1


def test_an_attempt_that_is_forgotten_is_no_forgotten_grant() -> None:
    """It would come back as a first one, and start twice (seed 950583)."""
    cluster, _ = working(1)
    (peer,) = cluster.peers
    first = owner_of(peer).first
    assert first is not None
    first.begun = True
    assert not plant(peer, "forgotten grant")
    first.begun = False
    first.attempt += 1
    assert not plant(peer, "forgotten grant")
    first.attempt -= 1
    assert plant(peer, "forgotten grant")


def test_the_ledger_knows_of_it_and_names_peer_and_job() -> None:
    cluster, job = working(3)
    peer = cluster.peers[-1]
    stall(cluster, peer, "hosts")
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=60_000)
    (event,) = cluster.stalls.told.values()
    assert (event.job, event.peer, event.fault) == (job, peer.id, Fault.EXECUTOR)
    assert event.tasks


@pytest.mark.parametrize("seed", range(2))
def test_work_that_waits_as_it_should_is_no_fault(seed: int) -> None:
    """For slots, behind tasks that never end, for what no peer is, for a peer that sleeps."""
    cluster, _ = working(3, seed=seed)
    cluster.submit(sim_job(TaskSet.of(0, 40), mean_us=TASK_US, hang_permille=1000))
    cluster.submit(sim_job(TaskSet.of(0, 4), mean_us=TASK_US, cpus=9))
    cluster.after(20_000, lambda: cluster.pause(1, 10_000))
    cluster.run_for(CALM_MS)
    found = {name: n for name, n in cluster.happened.items() if name.startswith("stall found")}
    assert found == {}


def test_the_referee_notices_a_false_alarm() -> None:
    cluster, _ = working(1)
    peer = cluster.peers[0]
    plant(peer, "missed")  # and nobody told the referee
    with pytest.raises(SimulationError, match="stands still for no reason"):
        cluster.run_for(CALM_MS)


def test_a_batch_that_was_lost_and_then_stopped_holds_its_slot_no_longer() -> None:
    cluster, job = working(1, short=True)
    (peer,) = cluster.peers
    stall(cluster, peer, "lost batch")
    cluster.cancel(job)
    cluster.run_until(lambda: cluster.state_of(job) == "cancelled", within_ms=10_000)
    assert owner_of(peer).batches
    cluster.run_until(lambda: not owner_of(peer).batches, within_ms=3 * STALL_MS)

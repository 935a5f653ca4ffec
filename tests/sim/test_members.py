"""Members that are removed and replaced, and tasks that never end, in clusters driven by hand."""

from __future__ import annotations

from p2psched.model.ids import PeerId
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_group import bears
from p2psched.testing.sim_items import RemoveHere
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer
from tests.sim.test_cluster import TEN, run_until_led
from tests.sim.test_lives import finish

HAND_OVER_MS = 100  # far below an election timeout of 500


def remove(cluster: SimCluster, leader: SimPeer, old: PeerId) -> None:
    """Until that is committed."""
    cluster.bring(1, leader.number, leader.process, RemoveHere(old))
    members = cluster.referees.members
    cluster.run_until(lambda: members.newest.member(old) is None, within_ms=1_000)


def test_a_leader_that_is_removed_hands_over_and_comes_back_as_another() -> None:
    cluster = SimCluster(seed=31, peers=3)
    leader = run_until_led(cluster)
    job = cluster.submit(sim_job(TEN, mean_us=300_000))
    cluster.run_until(lambda: cluster.state_of(job) == "running", within_ms=10_000)
    old = leader.id
    remove(cluster, leader, old)
    others = [peer for peer in cluster.peers if peer is not leader]
    cluster.run_until(
        lambda: any(peer.engine.raft.is_ready_leader for peer in others), within_ms=HAND_OVER_MS
    )
    cluster.run_for(2_000)  # it wants to come back, and may not
    assert leader.id == old
    assert cluster.referees.members.newest.member(old) is None
    cluster.retire(leader.number)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    members = cluster.referees.members
    cluster.run_until(lambda: members.newest.is_voter(leader.id), within_ms=10_000)
    finish(cluster)
    assert leader.id != old
    assert members.newest.removed == (old,)


def test_a_dead_voter_is_replaced_and_the_group_bears_the_next_loss() -> None:
    cluster = SimCluster(seed=32, peers=3)
    leader = run_until_led(cluster)
    dead, other = (peer for peer in cluster.peers if peer is not leader)
    old = dead.id
    assert cluster.wipe(dead.number)
    remove(cluster, leader, old)
    members = cluster.referees.members
    cluster.run_until(lambda: members.newest.is_voter(dead.id), within_ms=10_000)
    assert cluster.wipe(other.number)
    finish(cluster)


def test_people_take_no_vote_away_without_which_nobody_could_lead() -> None:
    """As real peers refuse it (seed 950626)."""
    cluster = SimCluster(seed=36, peers=3)
    leader = run_until_led(cluster)
    dead, other = (peer for peer in cluster.peers if peer is not leader)
    old = dead.id
    assert bears(cluster, leader, leader.id)
    assert cluster.wipe(dead.number)
    for unwanted, may in ((leader.id, False), (other.id, False), (old, True), (None, True)):
        assert bears(cluster, leader, unwanted) == may


def test_a_limit_ends_a_task_that_never_ends_and_the_others_go_on() -> None:
    cluster = SimCluster(seed=33, peers=3)
    spec = sim_job(TEN, mean_us=1_000, hang_permille=300, timeout_ms=200)
    job = cluster.submit(spec)
    cluster.run_until(lambda: cluster.state_of(job) == "failed", within_ms=10_000)
    finish(cluster)
    counts = cluster.referees.shadow.counts
    assert 0 < counts["timed out"] == cluster.happened["tasks hung"] < len(TEN)


def test_a_cancel_ends_what_never_ends() -> None:
    cluster = SimCluster(seed=34, peers=3)
    job = cluster.submit(sim_job(TEN, mean_us=1_000, hang_permille=1_000))
    cluster.run_until(lambda: cluster.happened["tasks hung"] > 0, within_ms=10_000)
    cluster.run_for(10_000)
    assert cluster.state_of(job) == "running"
    cluster.cancel(job)
    cluster.run_until(lambda: cluster.state_of(job) == "cancelled", within_ms=5_000)
    finish(cluster)


def test_what_hangs_where_nobody_hears_it_is_granted_elsewhere_and_stopped() -> None:
    cluster = SimCluster(seed=35, peers=3)
    job = cluster.submit(sim_job(TaskSet.of(0, 3), mean_us=1_000, hang_permille=1_000))
    cluster.run_until(lambda: cluster.happened["tasks hung"] == 3, within_ms=10_000)
    owned_by = cluster.referees.shadow.owned_by
    alone = next(p for p in cluster.peers if owned_by(p.id) and not p.engine.raft.is_leader)
    cluster.network.cut_between([alone.number], [n for n in range(3) if n != alone.number])
    cluster.run_until(lambda: not owned_by(alone.id), within_ms=10_000)
    assert alone.scheduler.owner.running_count > 0
    cluster.network.heal()
    cluster.run_until(lambda: alone.scheduler.owner.running_count == 0, within_ms=10_000)
    cluster.cancel(job)
    cluster.run_until(lambda: cluster.state_of(job) == "cancelled", within_ms=5_000)
    finish(cluster)

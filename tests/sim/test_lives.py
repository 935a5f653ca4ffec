"""Machines that sleep, disks that are lost or damaged, and links that hold back what they carry."""

from __future__ import annotations

import random

import pytest

from p2psched.core.raft.progress import Compaction
from p2psched.model.raft import HardState, Membership
from p2psched.model.taskset import TaskSet
from p2psched.store.log import LogStore
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_disk import SimDisk
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_rot import LOG_PREFIX, damage
from p2psched.testing.sim_world import Snapshots
from tests.sim.test_cluster import TEN, run_until_led


def finish(cluster: SimCluster) -> None:
    cluster.heal()
    cluster.run_until(lambda: cluster.referees.has_ended(cluster.peers), within_ms=30_000)
    cluster.check_end()


def test_a_peer_whose_disk_is_lost_comes_back_as_another_and_nothing_is_lost() -> None:
    cluster = SimCluster(seed=21, peers=3)
    leader = run_until_led(cluster)
    job = cluster.submit(sim_job(TEN, mean_us=500_000))
    cluster.run_until(lambda: cluster.state_of(job) == "running", within_ms=10_000)
    before = leader.id
    assert cluster.wipe(leader.number)
    assert not cluster.wipe((leader.number + 1) % 3)  # that would be one too many
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    finish(cluster)
    membership = cluster.peers[0].engine.raft.membership
    assert leader.id != before
    assert membership.is_voter(before)
    assert [member.peer for member in membership.learners] == [leader.id]


def test_a_damaged_log_is_found_at_the_next_start_and_its_peer_votes_no_more() -> None:
    cluster = SimCluster(seed=23, peers=3)
    peer = run_until_led(cluster)
    for _ in range(5):
        cluster.submit(sim_job(TEN, mean_us=1_000))
    cluster.run_for(3_000)
    before = peer.id
    while not cluster.rot(peer.number):
        pass
    cluster.run_for(1_000)
    assert peer.id == before
    cluster.crash(peer.number, power_lost=True)
    cluster.run_until(lambda: peer.alive and peer.id != before, within_ms=5_000)
    assert cluster.happened["damage found"] == 1
    finish(cluster)


@pytest.mark.parametrize("piece", [200, 1 << 20])
def test_a_leader_with_a_damaged_snapshot_does_not_send_it_for_ever(piece: int) -> None:
    cluster = SimCluster(seed=5, peers=3, snapshots=Snapshots(5, Compaction(0, 0, 0, piece)))
    leader = run_until_led(cluster)
    late = next(peer for peer in cluster.peers if peer is not leader)
    cluster.kill(late.number)
    for _ in range(6):
        cluster.submit(sim_job(TEN, mean_us=1_000))
        cluster.run_for(500)
    cluster.run_for(6_000)
    cluster.snapshots = Snapshots()  # no newer one puts it right
    name = max(name for name in leader.disk.names() if name.startswith("snapshot"))
    leader.disk.flip_bit(name, 8 * leader.disk.durable_bytes(name)[0] - 20)
    leader.is_rotten = True
    cluster.start(late.number)
    cluster.run_until(lambda: late.scheduler.machine.applied_index > 20, within_ms=20_000)
    finish(cluster)
    assert cluster.happened["stopped by damage"] == 1


def test_a_machine_that_slept_finds_its_clock_ahead_and_its_messages_lost() -> None:
    cluster = SimCluster(seed=23, peers=3)
    leader = run_until_led(cluster)
    job = cluster.submit(sim_job(TaskSet.of(0, 30), mean_us=200_000))
    cluster.run_until(lambda: len(cluster.referees.starts) > 3, within_ms=10_000)
    before_ms = leader.now_ms
    cluster.suspend(leader.number, 20_000)
    cluster.run_for(19_000)
    assert cluster.happened["lost in sleep"] > 0
    assert len(cluster.referees.leaders) == 2
    cluster.run_for(2_000)
    assert leader.now_ms - before_ms >= 21_000
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    finish(cluster)


@pytest.mark.parametrize("stale", [0.0, 1.0])
def test_what_is_sent_into_a_cut_is_lost_or_arrives_after_it(stale: float) -> None:
    cluster = SimCluster(seed=24, peers=3)
    leader = run_until_led(cluster)
    cluster.network.stale = stale
    others = [peer.number for peer in cluster.peers if peer is not leader]
    cluster.network.cut_between([leader.number], others)
    cluster.run_for(2_000)
    assert cluster.happened["cut off"] > 0
    cluster.network.mend()
    assert (cluster.happened["stale"] > 0) == bool(stale)
    finish(cluster)


def test_a_clogged_peer_gets_everything_in_the_end() -> None:
    cluster = SimCluster(seed=25, peers=3)
    leader = run_until_led(cluster)
    cluster.network.clog(leader.number)
    cluster.run_for(200)
    held = cluster.happened["clogged"]
    assert held > 0
    assert not cluster.happened["stale"]
    cluster.network.unclog(leader.number)
    assert cluster.happened["stale"] == held
    assert not cluster.happened["cut off"]


@pytest.mark.parametrize("seed", range(20))
def test_damage_changes_bytes_and_leaves_alone_what_was_synced_last(seed: int) -> None:
    rng = random.Random(seed)
    disk = SimDisk(random.Random(seed))
    store, _ = LogStore.open(disk, segment_bytes_max=200)
    for term in range(1, 30):
        store.write(hard_state=HardState(term, None), truncate_from=None, entries=())
        store.sync()
    before = {name: disk.read(name) for name in disk.names()}
    kind = damage(disk, rng, spare="")
    after = {name: disk.read(name) for name in disk.names()}
    assert (kind is None) == (before == after)
    newest = max(name for name in before if name.startswith(LOG_PREFIX))
    settled = disk.durable_bytes(newest)[1]
    assert before[newest][settled:] == after[newest][settled:]


@pytest.mark.parametrize("seed", range(20, 24))
def test_no_disk_is_lost_that_the_group_needs_which_its_leader_has_begun_to_have(seed: int) -> None:
    cluster = SimCluster(seed=seed, peers=3)
    leader = run_until_led(cluster)
    cluster.run_for(500)
    commits = {peer.engine.raft.commit for peer in cluster.peers}
    assert len(commits) == 1, "who knows most of what is committed doesn't say who leads"
    demoted = next(peer for peer in cluster.peers if peer is not leader)
    raft = leader.engine.raft
    voters = tuple(m for m in raft.membership.voters if m.peer != demoted.id)
    raft._s._memberships.append((raft.last_index + 1, Membership(voters)))
    assert not cluster.wipe(leader.number)

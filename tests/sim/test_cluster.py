"""The simulated cluster as users drive it: by hand, step by step."""

from __future__ import annotations

import pytest

from p2psched.core.coordinator import DETECTION_WINDOW_MS
from p2psched.model.commands import Acknowledged, Outcome, SubmitJob, Submitted
from p2psched.model.ids import JobId, new_id
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_leading import LEAVE_MS_MAX
from p2psched.testing.sim_peer import SimPeer

TEN = TaskSet.of(0, 10)


def leader_of(cluster: SimCluster) -> SimPeer | None:
    leaders = [peer for peer in cluster.peers if peer.alive and peer.engine.raft.is_ready_leader]
    return max(leaders, key=lambda peer: peer.engine.raft.term, default=None)


def run_until_led(cluster: SimCluster) -> SimPeer:
    cluster.run_until(lambda: leader_of(cluster) is not None, within_ms=10_000)
    leader = leader_of(cluster)
    assert leader is not None
    return leader


@pytest.mark.parametrize("peers", [1, 2, 3, 5])
def test_a_job_succeeds_on_any_number_of_peers(peers: int) -> None:
    cluster = SimCluster(seed=1, peers=peers)
    job = cluster.submit(sim_job(TEN, mean_us=20_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)


def test_peers_that_join_one_by_one_become_three_voters_and_learners() -> None:
    cluster = SimCluster(seed=2, peers=5, formed=False)

    def is_whole() -> bool:
        membership = cluster.peers[0].engine.raft.membership
        return (len(membership.voters), len(membership.learners)) == (3, 2)

    cluster.run_until(is_whole, within_ms=20_000)


def test_a_peer_that_does_not_want_to_vote_runs_tasks_and_stays_a_learner() -> None:
    cluster = SimCluster(
        seed=4, peers=4, slots=(0, 2, 0, 0), votes=(True, False, True, True), formed=False
    )

    def is_whole() -> bool:
        membership = cluster.peers[0].engine.raft.membership
        return (len(membership.voters), len(membership.learners)) == (3, 1)

    cluster.run_until(is_whole, within_ms=20_000)
    job = cluster.submit(sim_job(TEN, mean_us=20_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)
    assert not cluster.peers[0].engine.raft.membership.is_voter(cluster.peers[1].id)


def test_a_job_survives_the_crash_of_all_peers_at_once() -> None:
    cluster = SimCluster(seed=3, peers=3)
    answers: list[Outcome] = []
    job = JobId(new_id(cluster.rng))
    cluster.ask(SubmitJob(job, sim_job(TEN, mean_us=200_000)), answers.append)
    cluster.run_until(lambda: bool(answers), within_ms=10_000)
    for peer in cluster.peers:
        cluster.crash(peer.number, power_lost=True)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    assert answers == [Submitted(job, duplicate=False)]


def test_the_same_job_submitted_often_through_any_peer_is_one_job() -> None:
    cluster = SimCluster(seed=4, peers=3)
    command = SubmitJob(JobId(new_id(cluster.rng)), sim_job(TEN, mean_us=20_000))
    answers: list[Outcome] = []
    for _ in range(20):
        cluster.ask(command, answers.append)
        cluster.run_for(50)
    cluster.run_until(lambda: len(answers) == 20, within_ms=10_000)
    assert sum(answer == Submitted(command.job, duplicate=False) for answer in answers) == 1
    assert len(cluster.referees.shadow.jobs) == 1


def test_tasks_of_a_crashed_owner_run_elsewhere() -> None:
    cluster = SimCluster(seed=5, peers=3, slots=(1,))
    job = cluster.submit(sim_job(TaskSet.of(0, 6), mean_us=1_000_000))
    cluster.run_until(lambda: bool(cluster.referees.starts), within_ms=10_000)
    owner = next(p for p in cluster.peers if p.id == cluster.referees.starts[0].peer)
    cluster.crash(owner.number)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    assert cluster.referees.regrant_ms


def test_a_paused_leader_is_replaced_and_its_late_results_are_refused_or_current() -> None:
    cluster = SimCluster(seed=6, peers=3)
    leader = run_until_led(cluster)
    job = cluster.submit(sim_job(TEN, mean_us=200_000))
    cluster.run_until(lambda: bool(cluster.referees.starts), within_ms=10_000)
    cluster.pause(leader.number, 10_000)
    cluster.run_until(lambda: leader_of(cluster) is not leader, within_ms=5_000)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    cluster.run_until(lambda: cluster.referees.has_ended(cluster.peers), within_ms=30_000)
    cluster.run_for(3_000)  # a stop takes its time
    cluster.check_end()


def test_a_cancelled_job_stays_cancelled_when_its_owner_comes_back() -> None:
    cluster = SimCluster(seed=7, peers=3)
    job = cluster.submit(sim_job(TEN, mean_us=1_000_000))
    cluster.run_until(lambda: bool(cluster.referees.starts), within_ms=10_000)
    owner = next(p for p in cluster.peers if p.id == cluster.referees.starts[0].peer)
    others = [peer.number for peer in cluster.peers if peer is not owner]
    cluster.network.cut_between([owner.number], others)
    cluster.cancel(job)
    cluster.run_until(lambda: cluster.state_of(job) == "cancelled", within_ms=10_000)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.referees.has_ended(cluster.peers), within_ms=30_000)
    assert cluster.state_of(job) == "cancelled"


def test_a_half_connected_peer_deposes_nobody() -> None:
    cluster = SimCluster(seed=8, peers=3)
    leader = run_until_led(cluster)
    other = next(peer for peer in cluster.peers if peer is not leader)
    cluster.network.cut(leader.number, other.number)  # it hears nothing, and can be heard
    cluster.run_for(30_000)
    assert list(cluster.referees.leaders.values()) == [leader.id]


def test_a_peer_that_the_leader_forgot_asks_again_to_join() -> None:
    """Its own log may name it a member in an entry that the others have dropped."""
    cluster = SimCluster(seed=9, peers=2, formed=False)
    founder, joiner = cluster.peers
    for peer in cluster.peers:
        peer.level = 1  # none is raised: what the founder commits twice is the same
    cluster.run_until(
        lambda: joiner.engine.raft.membership.member(joiner.id) is not None, within_ms=10_000
    )
    # The founder falls back to a disk on which the joiner was never heard of.
    cluster.crash(founder.number, power_lost=True)
    for name in founder.disk.names():
        founder.disk.remove(name)
    cluster.referees.disks.forget(founder.id)
    cluster.referees.events.said.clear()  # it says them at other times
    cluster.run_until(
        lambda: founder.alive and founder.engine.raft.membership.member(joiner.id) is not None,
        within_ms=10_000,
    )


def test_reads_through_a_follower_are_answered() -> None:
    cluster = SimCluster(seed=10, peers=3)
    leader = run_until_led(cluster)
    answers: list[int | None] = []
    follower = next(peer for peer in cluster.peers if peer is not leader)
    cluster.run_for(1_000)
    cluster.read(follower.number, answers.append)
    cluster.run_until(lambda: bool(answers), within_ms=3_000)
    assert answers[0] is not None
    assert answers[0] >= 2


def test_cancel_of_an_ended_job_is_acknowledged_and_changes_nothing() -> None:
    cluster = SimCluster(seed=11, peers=3)
    job = cluster.submit(sim_job(TEN, mean_us=1_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)
    answers: list[Outcome] = []
    cluster.cancel(job, answers.append)
    cluster.run_until(lambda: bool(answers), within_ms=10_000)
    assert answers == [Acknowledged()]
    assert cluster.state_of(job) == "succeeded"


def test_what_does_not_happen_in_time_is_an_error_that_says_how_to_see_it_again() -> None:
    cluster = SimCluster(seed=12, peers=3, replay="again, please")
    with pytest.raises(SimulationError, match=r"not within 500 ms\nseed 12, 3 peers") as caught:
        cluster.run_until(lambda: False, within_ms=500)
    message = str(caught.value)
    assert "virtual time" in message
    assert "peer 0: " in message
    assert message.endswith("again: again, please")


def test_tasks_of_a_peer_that_leaves_move_before_anybody_could_miss_it() -> None:
    cluster = SimCluster(seed=13, peers=3, slots=(4,), faults=Faults(restart_ms_max=60_000))
    leader = run_until_led(cluster)
    job = cluster.submit(sim_job(TaskSet.of(0, 6), mean_us=60_000_000))
    cluster.run_until(lambda: len(cluster.referees.starts) == 6, within_ms=10_000)
    leaving = next(peer for peer in cluster.peers if peer is not leader)
    mine = cluster.referees.shadow.owned_by(leaving.id)
    assert mine
    began_us = cluster.now_us
    cluster.leave(leaving.number)
    cluster.run_until(lambda: not leaving.alive, within_ms=1_000)
    cluster.run_until(
        lambda: not cluster.referees.shadow.owned_by(leaving.id), within_ms=DETECTION_WINDOW_MS
    )
    assert cluster.now_us - began_us < 100_000
    others = [peer for peer in cluster.peers if peer is not leaving]
    held = [task for peer in others for task in cluster.referees.shadow.owned_by(peer.id)]
    assert set(mine) <= set(held)
    assert cluster.state_of(job) == "running"


def test_a_peer_that_leaves_without_a_majority_stops_all_the_same() -> None:
    cluster = SimCluster(seed=14, peers=3)
    run_until_led(cluster)
    cluster.network.cut_between([0], [1, 2])
    cluster.leave(0)
    process = cluster.peers[0].process
    cluster.run_until(lambda: cluster.peers[0].process != process, within_ms=LEAVE_MS_MAX + 100)
    assert cluster.happened["left"] == 0


def test_a_rolling_stop_of_all_peers_loses_nothing() -> None:
    cluster = SimCluster(seed=15, peers=3)
    job = cluster.submit(sim_job(TaskSet.of(0, 30), mean_us=300_000))
    cluster.run_until(lambda: bool(cluster.referees.starts), within_ms=10_000)
    for number in (0, 1, 2):
        cluster.leave(number)
        cluster.run_for(4_000)
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=30_000)
    assert cluster.happened["left"] == 3

"""The referees' own reading of the ledger, and what they object to."""

from __future__ import annotations

import pytest

from p2psched.model.commands import (
    Cancel,
    Complete,
    KeptGrant,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    SubmitJob,
    Submitted,
)
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.raft import VoteReply, VoteRequest
from p2psched.model.taskset import TaskSet
from p2psched.testing.referees import BrokenPromiseError, Referees
from p2psched.testing.shadow import Shadow
from p2psched.testing.shadow_job import ENDED, WAITING
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job

JOB, P, Q = JobId("job"), PeerId("p"), PeerId("q")
TWO = TaskSet.of(0, 2)


def up(peer: PeerId, incarnation: int, *kept: KeptGrant) -> PeerUp:
    return PeerUp(PeerInfo(peer, incarnation, "", "", 0, 1, "", ""), kept)


def ok(index: int, cause: Cause = Cause.OK) -> Segment:
    return Segment(index, index + 1, cause, b"")


@pytest.fixture
def shadow() -> Shadow:
    """Two peers are up; command 4 granted two tasks to the first."""
    made = Shadow()
    spec = sim_job(TWO, mean_us=1)
    for command in (up(P, 1), up(Q, 1), SubmitJob(JOB, spec), Place(JOB, TWO, P, 1)):
        made.apply(command)
    return made


def test_the_shadow_counts_a_result_under_its_grant_once(shadow: Shadow) -> None:
    assert shadow.apply(Complete(JOB, 4, (ok(0),))) == [("recorded", JOB, 0, "4 ok")]
    assert shadow.apply(Complete(JOB, 4, (ok(0),))) == []
    assert shadow.apply(Complete(JOB, 3, (ok(1),))) == [("refused", JOB, 1, "3")]


def test_the_shadow_moves_tasks_of_the_dead_only(shadow: Shadow) -> None:
    assert shadow.apply(Place(JOB, TWO, Q, 1)) == []
    shadow.apply(PeerDown(P, 1, ""))
    facts = shadow.apply(Place(JOB, TaskSet.of(0, 1), Q, 1))
    assert facts == [("granted", JOB, 0, "7"), ("revoked", JOB, 0, "4")]
    assert shadow.jobs[JOB].owner == {0: 7, 1: 4}


def test_the_shadow_lets_a_peer_keep_what_it_names(shadow: Shadow) -> None:
    shadow.apply(up(P, 2, KeptGrant(JOB, 4, TaskSet.of(0, 1))))
    assert shadow.jobs[JOB].owner == {0: 4, 1: WAITING}
    assert shadow.owned_by(P) == [(JOB, 0)]


def test_the_shadow_ends_a_cancelled_job_for_good(shadow: Shadow) -> None:
    shadow.apply(Cancel(JOB))
    assert shadow.apply(Complete(JOB, 4, (ok(0),))) == [("refused", JOB, 0, "4")]
    assert set(shadow.jobs[JOB].owner.values()) == {ENDED}


def test_an_acknowledged_job_that_was_never_committed_is_objected_to() -> None:
    submit = SubmitJob(JOB, sim_job(TWO, mean_us=1))
    with pytest.raises(BrokenPromiseError, match="P1: job job acknowledged"):
        Referees().on_answered(submit, Submitted(JOB, duplicate=False))


def test_a_stale_read_is_objected_to() -> None:
    with pytest.raises(BrokenPromiseError, match="P8"):
        Referees().on_read(4, 5)


def test_a_second_vote_in_a_term_is_objected_to() -> None:
    peer = SimCluster(seed=1, peers=3).peers[0]
    referees = Referees()
    referees.on_said(peer, P, VoteReply(2, True, pre=False))
    referees.on_said(peer, P, VoteReply(2, True, pre=False))
    referees.on_said(peer, Q, VoteReply(3, True, pre=False))
    with pytest.raises(BrokenPromiseError, match="P4: peer 0 votes twice in term 2"):
        referees.on_said(peer, Q, VoteRequest(2, 1, 1, pre=False))


def test_a_repeated_proposal_changes_nothing_for_the_shadow(shadow: Shadow) -> None:
    shadow.apply(Cancel(JobId("later")), (Q, 7))
    shadow.apply(SubmitJob(JobId("later"), sim_job(TWO, mean_us=1)))
    assert shadow.apply(Cancel(JobId("later")), (Q, 7)) == []
    assert shadow.jobs[JobId("later")].state == "running"


def begin(referees: Referees, number: int, attempt: int) -> None:
    """Task 0 starts under grant 4, which is that of peer 0."""
    peer = SimCluster(seed=1, peers=3).peers[number]
    batch = Batch(1, JOB, sim_job(TWO, mean_us=1), TWO, 4, attempt, "")
    referees.on_started(peer, batch, 0)


@pytest.fixture
def granted() -> Referees:
    """Referees that saw a grant of two tasks to peer 0 of a cluster."""
    referees = Referees()
    peer = SimCluster(seed=1, peers=3).peers[0].id
    spec = sim_job(TWO, mean_us=1)
    for command in (up(peer, 1), up(Q, 1), SubmitJob(JOB, spec), Place(JOB, TWO, peer, 1)):
        referees.shadow.apply(command)
    return referees


def test_a_second_start_of_an_attempt_is_objected_to(granted: Referees) -> None:
    begin(granted, 0, attempt=1)
    begin(granted, 0, attempt=2)
    with pytest.raises(
        BrokenPromiseError, match="P5: peer 0 starts job/0 under grant 4, attempt 2"
    ):
        begin(granted, 0, attempt=2)


def test_a_new_batch_of_a_peer_that_leaves_is_objected_to(granted: Referees) -> None:
    peer = SimCluster(seed=1, peers=3).peers[0]
    peer.leaving, peer.last_batch = True, 1
    spec = sim_job(TWO, mean_us=1)
    granted.on_started(peer, Batch(1, JOB, spec, TWO, 4, 1, ""), 0)
    with pytest.raises(BrokenPromiseError, match="E5: peer 0 leaves or is drained"):
        granted.on_started(peer, Batch(2, JOB, spec, TWO, 4, 1, ""), 1)


def test_a_start_without_a_grant_is_objected_to(granted: Referees) -> None:
    with pytest.raises(BrokenPromiseError, match="P5: peer 1 starts job/0 without a grant"):
        begin(granted, 1, attempt=1)


def test_a_peer_that_may_stop_while_it_counts_as_up_is_objected_to(granted: Referees) -> None:
    peer = SimCluster(seed=1, peers=3).peers[0]
    granted.on_left(peer)  # this process never came up; a later one is somebody else
    granted.shadow.live[peer.id] = (peer.scheduler.info.incarnation, True)
    with pytest.raises(
        BrokenPromiseError, match="E5: peer 0 may stop, and its incarnation 0 is up"
    ):
        granted.on_left(peer)

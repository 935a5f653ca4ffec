"""Elections: the bugs that others shipped, by name."""

from __future__ import annotations

import pytest

from p2psched.core.raft.state import Role
from p2psched.core.raft.timing import Timing
from p2psched.model.ids import PeerId
from p2psched.model.raft import Append, HardState, VoteReply, VoteRequest
from tests.core.rig import Group, Node, entry


def test_a_duplicate_vote_reply_counts_once() -> None:
    node = Node("a", voters="abcde")
    node.time_out()
    for voter in "bc":
        node.receive(voter, VoteReply(2, True, pre=True))
    assert node.is_now(Role.CANDIDATE)
    for _ in range(5):
        node.receive("b", VoteReply(2, True, pre=False))
    assert node.is_now(Role.CANDIDATE)
    node.receive("c", VoteReply(2, True, pre=False))
    assert node.is_now(Role.LEADER)


def test_a_duplicate_pre_vote_reply_counts_once() -> None:
    node = Node("a", voters="abcde")
    node.time_out()
    for _ in range(5):
        node.receive("b", VoteReply(2, True, pre=True))
    assert node.is_now(Role.PRE_CANDIDATE)


def test_a_vote_reply_of_an_older_term_is_ignored() -> None:
    node = Node("a")
    node.become_candidate()
    node.time_out()
    node.receive("b", VoteReply(3, True, pre=True))
    assert node.raft.term == 3
    node.receive("c", VoteReply(2, True, pre=False))
    assert node.is_now(Role.CANDIDATE)


def test_a_pre_vote_is_no_vote() -> None:
    node = Node("a")
    node.become_candidate()
    node.receive("b", VoteReply(2, True, pre=True))
    assert node.is_now(Role.CANDIDATE)


def test_a_vote_of_somebody_who_is_no_voter_counts_nothing() -> None:
    node = Node("a")
    node.become_candidate()
    node.receive("z", VoteReply(2, True, pre=False))
    assert node.is_now(Role.CANDIDATE)


def test_a_vote_leaves_only_when_it_is_on_disk() -> None:
    node = Node("a", syncs_at_once=False)
    request = VoteRequest(2, last_index=1, last_term=1, pre=False)
    assert node.receive("b", request) == []
    assert node.unsynced[-1].hard_state == HardState(2, PeerId("b"))
    node.sync()
    assert [send.message for send in node.sent] == [VoteReply(2, True, pre=False)]


def test_a_candidates_own_vote_counts_only_when_it_is_on_disk() -> None:
    node = Node("a", syncs_at_once=False)
    node.time_out()
    node.receive("b", VoteReply(2, True, pre=True))
    node.receive("b", VoteReply(2, True, pre=False))
    assert node.is_now(Role.CANDIDATE)
    node.sync()
    assert node.is_now(Role.LEADER)


def test_a_term_has_one_vote_also_after_a_restart() -> None:
    node = Node("a", term=2, vote="b")
    asked_again = node.receive("b", VoteRequest(2, 1, 1, pre=False))
    asked_by_another = node.receive("c", VoteRequest(2, 1, 1, pre=False))
    assert asked_again == [VoteReply(2, True, pre=False)]
    assert asked_by_another == [VoteReply(2, False, pre=False)]


def test_stepping_down_in_its_own_term_keeps_the_vote() -> None:
    node = Node("a")
    node.become_candidate()
    node.receive("b", Append(2, 9, 2, 0, 1))  # does not fit, so the log stays short
    assert node.is_now(Role.FOLLOWER)
    assert node.raft.vote == "a"
    node.wait(5_000)
    assert node.receive("c", VoteRequest(2, 1, 1, pre=False)) == [VoteReply(2, False, pre=False)]


def test_a_candidate_with_a_shorter_log_gets_no_vote() -> None:
    node = Node("a", entries=[entry(2, 1, b"x")])
    assert node.receive("b", VoteRequest(2, 1, 1, pre=False)) == [VoteReply(2, False, pre=False)]


def test_a_candidate_with_a_newer_last_term_gets_the_vote_whatever_its_length() -> None:
    node = Node("a", entries=[entry(2, 1, b"x"), entry(3, 1, b"y")])
    assert node.receive("b", VoteRequest(4, 2, 3, pre=False)) == [VoteReply(4, True, pre=False)]


def test_a_pre_vote_raises_no_term_and_stores_nothing() -> None:
    node = Node("a", syncs_at_once=False)
    assert node.receive("b", VoteRequest(7, 1, 1, pre=True)) == [VoteReply(7, True, pre=True)]
    assert node.raft.term == 1
    assert node.unsynced == []


@pytest.mark.parametrize("pre", [True, False])
def test_who_hears_a_working_leader_answers_no_candidate(pre: bool) -> None:
    node = Node("a")
    node.receive("b", Append(2, 1, 1, 0, 1))
    node.wait(100)
    assert node.receive("c", VoteRequest(9, 9, 8, pre=pre)) == [VoteReply(2, False, pre)]
    assert node.raft.term == 2


def test_a_returning_peer_with_an_inflated_term_deposes_nobody() -> None:
    group = Group(Node("a"), Node("b"), Node("c", term=1))
    group.lost = lambda sender, send: "c" in {sender, send.to}
    group.pass_time(600_000)
    leader = next(node for node in group.nodes.values() if node.raft.is_ready_leader)
    term = leader.raft.term
    assert group.nodes[PeerId("c")].raft.term <= term
    group.lost = lambda sender, send: False
    group.pass_time(5_000)
    assert leader.raft.is_ready_leader
    assert leader.raft.term == term
    assert group.nodes[PeerId("c")].raft.leader == leader.raft._s.me


def test_a_half_connected_peer_raises_nobodys_term() -> None:
    group = Group(Node("a"), Node("b"), Node("c"))
    group.pass_time(3_000)
    leader = next(me for me, node in group.nodes.items() if node.raft.is_leader)
    term = group.nodes[leader].raft.term
    deaf = next(me for me in group.nodes if me != leader)
    group.lost = lambda sender, send: (sender, send.to) == (leader, deaf)
    group.pass_time(60_000)
    assert group.nodes[leader].raft.is_ready_leader
    assert {node.raft.term for node in group.nodes.values()} == {term}


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.wait(1_001)
    node.time_out()
    assert node.is_now(Role.FOLLOWER)
    assert node.raft.leader is None


@pytest.mark.parametrize(("size", "needed"), [(2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_a_majority_of_an_even_group_is_more_than_half(size: int, needed: int) -> None:
    voters = "abcdef"[:size]
    node = Node("a", voters=voters)
    node.time_out()
    for voter in voters[1:needed]:
        node.receive(voter, VoteReply(2, True, pre=True))
    for count, voter in enumerate(voters[1:needed], start=2):
        assert node.is_now(Role.CANDIDATE)
        node.receive(voter, VoteReply(2, True, pre=False))
        assert node.is_now(Role.LEADER) == (count >= needed)


def test_the_only_voter_leads_at_once() -> None:
    node = Node("a", voters="a")
    assert node.raft.due_ms == 0
    node.time_out()
    assert node.raft.is_ready_leader
    assert node.raft.commit == 2


def test_a_learner_never_campaigns() -> None:
    node = Node("z")
    for _ in range(5):
        assert node.time_out() == []
    assert node.is_now(Role.FOLLOWER)


@pytest.mark.parametrize("times", [(300, 500, 1000), (100, 500, 500), (0, 500, 1000)])
def test_impossible_times_are_refused(times: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="2 x heartbeat"):
        Timing(*times)

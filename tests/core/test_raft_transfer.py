"""A leader hands over: at once, to somebody who has everything; in doubt it leads on."""

from __future__ import annotations

import pytest

from p2psched.core.raft.effects import Send
from p2psched.core.raft.state import Role
from p2psched.model.raft import Append, AppendReply, TimeoutNow, VoteReply, VoteRequest
from tests.core.rig import ABC, TIMING, Group, Node, appends, entry


def led(*, voters: str = "abc") -> Node:
    """`a` leads, and all others have all of its log."""
    node = Node("a", voters=voters)
    node.lead(*voters[1 : len(voters) // 2 + 1])
    for other in voters[1:]:
        node.ack(other)
    return node


def told(sent: list[Send]) -> list[str]:
    return [send.to for send in sent if isinstance(send.message, TimeoutNow)]


def test_a_caught_up_voter_is_told_at_once() -> None:
    node = led()
    assert told(node.hand_over()) == ["b"]
    assert node.raft.is_handing_over


def test_the_one_with_the_quickest_disk_is_told() -> None:
    node = led()
    node.receive("b", AppendReply(node.raft.term, 1, True, node.raft.last_index, sync_ms=90))
    node.receive("c", AppendReply(node.raft.term, 1, True, node.raft.last_index, sync_ms=20))
    assert told(node.hand_over()) == ["c"]


def test_who_lacks_entries_is_told_only_when_they_are_on_its_disk() -> None:
    node = led()
    node.propose(b"x")
    assert told(node.hand_over()) == []
    assert TimeoutNow(node.raft.term) not in node.ack("c")
    assert TimeoutNow(node.raft.term) in node.ack("b")


def test_nothing_is_appended_meanwhile() -> None:
    node = led()
    node.hand_over()
    last = node.raft.last_index
    node.propose(b"x")
    node.add("d")
    assert node.raft.last_index == last


def test_a_leader_that_is_not_replaced_within_an_election_timeout_leads_on() -> None:
    node = led()
    node.hand_over()
    node.now_ms += TIMING.election_ms_min
    for other in "bc":
        node.ack(other)
    assert node.raft.due_ms <= node.now_ms
    node.time_out()
    assert not node.raft.is_handing_over
    node.propose(b"x")
    assert node.raft.entries(node.raft.last_index, node.raft.last_index + 1)[0].payload == b"x"


def test_a_lost_word_is_said_again_with_the_next_answer() -> None:
    node = led()
    node.hand_over()
    assert TimeoutNow(node.raft.term) in node.ack("b")
    assert node.ack("c") == []


@pytest.mark.parametrize("why", ["alone", "a follower", "nobody heard", "far behind"])
def test_nobody_is_told_who_could_not_take_over(why: str) -> None:
    node = Node("a", voters="a" if why == "alone" else ABC)
    if why == "alone":
        node.time_out()
    elif why != "a follower":
        node.lead("b")
    if why == "nobody heard":
        node.ack("b")
        node.wait(TIMING.election_ms_min + 1)
    assert told(node.hand_over()) == []
    assert not node.raft.is_handing_over


def test_a_learner_is_never_told() -> None:
    node = led()
    node.add("d")
    for other in "bcd":
        node.ack(other)
    node.receive("b", AppendReply(node.raft.term, 1, True, node.raft.last_index, sync_ms=50))
    node.receive("c", AppendReply(node.raft.term, 1, True, node.raft.last_index, sync_ms=60))
    assert told(node.hand_over()) == ["b"]


def follower(me: str = "b") -> Node:
    node = Node(me, term=2)
    node.receive("a", Append(2, 1, 1, 1, 1, (entry(2, 2, b"x"),)))
    return node


def test_who_is_told_asks_for_votes_without_asking_whether_to() -> None:
    node = follower()
    node.receive("a", TimeoutNow(2))
    assert node.is_now(Role.CANDIDATE)
    asked = [send.message for send in node.sent if isinstance(send.message, VoteRequest)]
    assert asked == [VoteRequest(3, 2, 2, pre=False, transfer=True)] * 2


@pytest.mark.parametrize(("sender", "term"), [("c", 2), ("a", 1)])
def test_only_the_leader_of_now_is_obeyed(sender: str, term: int) -> None:
    node = follower()
    node.receive(sender, TimeoutNow(term))
    assert node.is_now(Role.FOLLOWER)
    assert node.raft.term == 2


def test_voters_that_hear_their_leader_vote_in_a_transfer_and_not_otherwise() -> None:
    for transfer in (False, True):
        node = follower("c")
        answers = node.receive("b", VoteRequest(3, 2, 2, pre=False, transfer=transfer))
        assert answers == [VoteReply(3 if transfer else 2, transfer, pre=False)]


def test_a_transfer_does_not_help_who_lacks_entries() -> None:
    node = follower("c")
    answers = node.receive("b", VoteRequest(3, 1, 1, pre=False, transfer=True))
    assert answers == [VoteReply(3, False, pre=False)]


def test_a_group_has_a_new_leader_without_a_timer() -> None:
    group = Group(*map(Node, ABC))
    group.pass_time(3_000)
    old = next(node for node in group.nodes.values() if node.is_now(Role.LEADER))
    old.propose(b"x")
    group.settle()
    last = old.raft.last_index
    old.sent = old.hand_over()
    group.settle()
    new = next(node for node in group.nodes.values() if node.is_now(Role.LEADER))
    assert new is not old
    assert old.raft.leader == new.raft.leader
    assert new.raft.commit == last + 1  # and its first entry is committed


# --- slow disks -----------------------------------------------------------------------------------


def with_disks(own_ms: float, others_ms: int, *, syncs: int = 30) -> list[str]:
    """Whom a leader tells that syncs `syncs` times so slowly, before its next heartbeats."""
    node = led()
    node.sync_ms = own_ms
    said: list[str] = []
    for _ in range(syncs):
        node.propose(b"x")
        node.wait(TIMING.heartbeat_ms)
        for other in "bc":
            reply = AppendReply(node.raft.term, 1, True, node.raft.last_index, sync_ms=others_ms)
            node.receive(other, reply)
            said += told(node.sent)
        said += told(node.time_out())
    return said


def test_a_leader_with_a_slow_disk_hands_over_to_a_quick_one() -> None:
    assert "b" in with_disks(300, 3)


def test_a_leader_does_not_hand_over_for_one_slow_sync() -> None:
    assert with_disks(900, 3, syncs=1) == []


@pytest.mark.parametrize(("own_ms", "others_ms"), [(100, 3), (300, 200), (300, 300)])
def test_a_leader_stays_where_no_disk_is_much_quicker(own_ms: float, others_ms: int) -> None:
    assert with_disks(own_ms, others_ms) == []


def test_a_disk_that_hangs_is_slow_though_no_sync_ever_ends() -> None:
    node = led()
    node.syncs_at_once = False
    node.propose(b"x")
    said: list[str] = []
    for _ in range(15):
        for other in "bc":
            node.ack(other)
        said += told(node.time_out())
    assert said == ["b"]


def test_heartbeats_tell_the_leader_of_a_slow_disk() -> None:
    node = Node("b", term=2)
    node.sync_ms = 300
    for number in range(2, 40):
        prev = 1 if number == 2 else 2
        node.receive("a", Append(2, number - 1, prev, 1, 1, (entry(number, 2, b"x"),)))
    (reply,) = node.receive("a", Append(2, 39, 2, 1, 2))
    assert isinstance(reply, AppendReply)
    assert reply.sync_ms in range(295, 301)


def test_a_leader_sends_no_heartbeats_less_while_it_hands_over() -> None:
    node = led()
    node.hand_over()
    assert appends([send.message for send in node.time_out()])

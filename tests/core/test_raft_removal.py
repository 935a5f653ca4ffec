"""Members that are removed: see also the scripts `raft_remov*`, which show whole sequences."""

from __future__ import annotations

import msgspec

from p2psched.core.raft.membership import REMOVED_MAX
from p2psched.core.raft.state import Role
from p2psched.model.raft import AppendReply, Membership, TimeoutNow
from tests.core.rig import Node, member


def leading(*, voters: str = "abc", followers: str = "bc") -> Node:
    node = Node("a", voters=voters)
    node.lead(*followers)
    for follower in followers:
        node.ack(follower)
    return node


def test_removed_identities_are_remembered_and_not_too_many() -> None:
    node = Node("a", voters="a")
    node.time_out()
    for number in range(REMOVED_MAX + 3):
        node.add(f"x{number}")
        node.remove(f"x{number}")
    removed = node.raft.membership.removed
    assert len(removed) == REMOVED_MAX
    node.add(removed[-1])
    node.add("x0")  # so long ago that it is forgotten
    assert [m.peer for m in node.raft.membership.learners] == ["x0"]


def test_who_is_no_member_may_be_removed_once_and_the_last_voter_stays() -> None:
    node = Node("a", voters="a")
    node.time_out()
    last = node.raft.last_index
    node.remove("a")
    assert node.raft.last_index == last
    node.remove("x")
    assert node.raft.membership.removed == ("x",)
    node.remove("x")
    node.add("x")
    assert node.raft.last_index == last + 1


def test_a_leader_that_removes_itself_hands_over_to_who_has_all_of_its_log() -> None:
    node = leading()
    node.remove("a")
    node.propose(b"too late")
    assert node.raft.is_handing_over
    node.ack("b")
    assert node.is_now(Role.LEADER)  # half of the voters that are left
    node.sent.clear()
    node.ack("c")
    told = [send.to for send in node.sent if isinstance(send.message, TimeoutNow)]
    assert told in (["b"], ["c"])
    assert node.is_now(Role.FOLLOWER)
    assert node.raft.commit == node.raft.last_index


def test_who_is_removed_gets_nothing_more_after_the_commit_of_that() -> None:
    node = leading()
    node.remove("c")
    node.sent.clear()
    node.ack("b")
    assert "c" in {send.to for send in node.sent}  # with what removes it
    node.sent.clear()
    node.propose(b"x")
    node.time_out()
    assert {send.to for send in node.sent} == {"b"}
    assert node.receive("c", AppendReply(node.raft.term, 1, True, 1)) == []


def test_a_membership_that_an_older_version_wrote_has_nobody_removed() -> None:
    old = msgspec.msgpack.encode([[["a", "a", "a:1"]], []])
    assert msgspec.msgpack.decode(old, type=Membership) == Membership((member("a"),))

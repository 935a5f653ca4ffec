"""Full disks in consensus: who leads, who is known to be full, who counts as there."""

from __future__ import annotations

from p2psched.core.raft.effects import RoomChanged
from p2psched.core.raft.state import Role
from p2psched.model.ids import PeerId
from p2psched.model.raft import Append, AppendReply, Room, TimeoutNow, VoteRequest
from tests.core.rig import TIMING, Node

B, C = PeerId("b"), PeerId("c")


def leader() -> Node:
    """Leads, and both others have all of its log."""
    node = Node("a")
    node.lead()
    for peer in ("b", "c"):
        say(node, peer, Room.ENOUGH)
    return node


def say(node: Node, peer: str, room: Room, match: int | None = None) -> None:
    last = node.raft.last_index if match is None else match
    node.receive(peer, AppendReply(node.raft.term, 1, True, last, room=room))


def fill(node: Node, room: Room = Room.LOW) -> None:
    node.step(RoomChanged(node.now_ms, room))


def told(node: Node) -> set[PeerId]:
    """Who was told to take over when the next timer fired."""
    return {send.to for send in node.time_out() if isinstance(send.message, TimeoutNow)}


def test_a_leader_whose_disk_fills_hands_over_to_one_that_has_room() -> None:
    node = leader()
    say(node, "b", Room.LOW)
    fill(node)
    assert node.is_now(Role.LEADER)  # until it looks
    assert told(node) == {C}
    assert node.raft.is_handing_over
    node.receive("c", VoteRequest(3, node.raft.last_index, 2, pre=False, transfer=True))
    assert node.is_now(Role.FOLLOWER)


def test_it_stands_down_if_nobody_has_taken_over_within_an_election_timeout() -> None:
    node = leader()
    fill(node)
    began_ms = node.now_ms
    while node.is_now(Role.LEADER):
        node.time_out()
        for peer in ("b", "c"):  # which say so all the time, and never campaign
            say(node, peer, Room.ENOUGH)
    assert node.now_ms - began_ms <= TIMING.election_ms_min + TIMING.heartbeat_ms
    assert node.raft.term == 2  # and nobody's term is raised by it


def test_it_leads_on_if_its_disk_has_room_again_meanwhile() -> None:
    node = leader()
    fill(node)
    assert told(node) != set()
    fill(node, Room.ENOUGH)
    while node.raft.is_handing_over:
        node.time_out()
        for peer in ("b", "c"):
            say(node, peer, Room.ENOUGH)
    assert node.is_now(Role.LEADER)


def test_it_stands_down_at_once_for_one_that_can_only_campaign_by_itself() -> None:
    node = leader()
    fill(node)
    node.wait(TIMING.election_ms_min + 1)  # heard within the longest election timeout, at least
    assert told(node) == set()
    assert node.is_now(Role.FOLLOWER)


def test_it_leads_on_while_all_others_are_full_too() -> None:
    node = leader()
    for peer in ("b", "c"):
        say(node, peer, Room.LOW)
    fill(node)
    node.time_out()
    assert node.is_now(Role.LEADER)
    say(node, "c", Room.ENOUGH)
    assert told(node) == {C}


def test_it_leads_on_while_the_one_with_room_is_behind_or_silent() -> None:
    node = leader()
    node.propose(b"x")
    say(node, "b", Room.LOW)
    assert node.raft.commit == node.raft.last_index
    say(node, "c", Room.ENOUGH, match=node.raft.last_index - 1)
    fill(node)
    node.time_out()
    assert node.is_now(Role.LEADER)
    for _ in range(TIMING.election_ms_max // TIMING.heartbeat_ms + 1):
        say(node, "b", Room.LOW)
        node.time_out()
    assert node.is_now(Role.LEADER)


def test_who_has_not_said_what_its_disk_takes_is_not_trusted_with_the_lead() -> None:
    node = Node("a")
    node.lead()
    fill(node)
    node.time_out()
    assert node.is_now(Role.LEADER)


def test_a_full_peer_campaigns_after_the_others() -> None:
    node = Node("a")
    fill(node)
    node.receive("b", Append(1, 1, 1, 1, 1))
    assert node.raft.due_ms - node.now_ms >= 2 * TIMING.election_ms_max
    fill(node, Room.ENOUGH)
    node.receive("b", Append(1, 1, 1, 1, 2))
    assert node.raft.due_ms - node.now_ms <= TIMING.election_ms_max


def test_a_follower_says_in_each_answer_what_its_disk_takes() -> None:
    node = Node("a")
    for room in (Room.LOW, Room.NONE, Room.ENOUGH):
        fill(node, room)
        (reply,) = node.receive("b", Append(1, 1, 1, 1, 1))
        assert isinstance(reply, AppendReply)
        assert reply.room == room


def test_the_leader_knows_who_is_full_itself_included() -> None:
    node = leader()
    say(node, "b", Room.LOW)
    assert node.raft.full_members() == {B}
    fill(node)
    say(node, "c", Room.NONE)
    assert node.raft.full_members() == {"a", B, C}
    fill(node, Room.ENOUGH)
    say(node, "b", Room.ENOUGH)
    assert node.raft.full_members() == {C}


def test_who_can_write_nothing_is_heard_and_does_not_count_as_there() -> None:
    node = leader()
    began_ms = node.now_ms
    node.wait(1_000)
    say(node, "b", Room.NONE)
    say(node, "c", Room.LOW)
    assert node.raft.contacts() == {B: began_ms, C: node.now_ms}
    node.time_out()
    assert node.is_now(Role.LEADER)  # both were heard: it has its quorum

"""Who gets an entry at once while there are many callers, and who a little later."""

from __future__ import annotations

from collections.abc import Sequence

from p2psched.core.raft.effects import HandOver, Send, Tick
from p2psched.core.raft.sparing import HEDGE_MS_MIN, SPARE_MS
from p2psched.model.ids import PeerId
from p2psched.model.raft import Append, ReadAsk, TimeoutNow
from tests.core.rig import ABC, Group, Node


def leader_of(*voters: str) -> Node:
    node = Node("a", voters=voters)
    node.time_out()
    for voter in voters[1 : len(voters) // 2 + 1]:
        node.step_vote(voter, pre=True)
    for voter in voters[1 : len(voters) // 2 + 1]:
        node.step_vote(voter, pre=False)
    for other in voters[1:]:
        node.ack(other)
    node.sent.clear()
    return node


def got(sent: Sequence[Send], index: int) -> list[str]:
    """Who was sent this entry."""
    return sorted(
        send.to
        for send in sent
        if isinstance(send.message, Append)
        and any(entry.index == index for entry in send.message.entries)
    )


def propose_many(node: Node, *concerned: str) -> list[str]:
    """Who gets an entry with many commands at once."""
    node.sent.clear()
    node.propose(b"x", *concerned, many=True)
    return got(node.sent, node.raft.last_index)


def look(node: Node, after_ms: int) -> list[Send]:
    node.sent.clear()
    node.wait(after_ms)
    node.step(Tick(node.now_ms, 0))
    return list(node.sent)


def test_an_entry_goes_at_once_to_those_whom_it_concerns_and_whom_it_needs() -> None:
    assert propose_many(leader_of(*ABC), "a") == ["b"]
    assert propose_many(leader_of(*ABC), "a", "c") == ["c"]
    assert propose_many(leader_of(*ABC), "b", "c") == ["b", "c"]
    assert propose_many(leader_of("a", "b", "c", "d", "e"), "e") == ["b", "e"]
    assert propose_many(leader_of("a", "b"), "a") == ["b"]


def test_what_concerns_everybody_or_is_one_of_few_waits_for_nobody() -> None:
    node = leader_of(*ABC)
    assert propose_many(node) == ["b", "c"]
    node = leader_of(*ABC)
    node.propose(b"x", "a")
    assert got(node.sent, node.raft.last_index) == ["b", "c"]


def test_the_others_get_several_entries_together_and_with_them_their_commit() -> None:
    node = leader_of(*ABC)
    began_ms = node.now_ms
    for _ in range(3):
        assert propose_many(node, "a") == ["b"]
        node.ack("b")
        node.wait(2)
    first, commit = node.raft.last_index - 2, node.raft.commit
    assert commit == node.raft.last_index
    sent = node.time_out()
    assert node.now_ms - began_ms == SPARE_MS
    (to_c,) = [s.message for s in sent if s.to == "c" and isinstance(s.message, Append)]
    assert [entry.index for entry in to_c.entries] == [first, first + 1, first + 2]
    assert to_c.commit == commit


def test_an_entry_goes_to_everybody_if_its_commit_takes_longer_than_others() -> None:
    node = leader_of(*ABC)
    assert propose_many(node, "a") == ["b"]
    index = node.raft.last_index
    assert got(look(node, HEDGE_MS_MIN - 1), index) == []
    assert got(look(node, 1), index) == ["c"]
    assert propose_many(node, "a") == ["b", "c"]  # nobody waits behind one that hangs
    node.ack("c")
    assert node.raft.commit == index + 1


def test_slow_commits_are_waited_for_a_while() -> None:
    node = leader_of(*ABC)
    for _ in range(100):
        propose_many(node, "a")
        look(node, 200)
        for other in "bc":
            node.ack(other)
    assert propose_many(node, "a") == ["b"]
    assert got(look(node, HEDGE_MS_MIN), node.raft.last_index) == []
    assert got(look(node, SPARE_MS - HEDGE_MS_MIN), node.raft.last_index) == ["c"]


def test_who_hangs_is_replaced_and_who_was_chosen_stays_it_otherwise() -> None:
    node = leader_of(*ABC)
    propose_many(node, "a")
    look(node, HEDGE_MS_MIN)
    node.ack("c")
    node.wait(100)
    look(node, 0)
    assert propose_many(node, "a") == ["c"]
    node.ack("b")
    node.ack("c")
    assert propose_many(node, "a") == ["c"]


def test_a_read_brings_a_spared_one_up_to_date() -> None:
    node = leader_of(*ABC)
    propose_many(node, "a")
    node.ack("b")
    node.sent.clear()
    node.receive("c", ReadAsk(node.raft.term, 7))
    assert got(node.sent, node.raft.commit) == ["c"]


def test_whoever_lacks_what_is_older_is_not_spared() -> None:
    node = leader_of(*ABC)
    for _ in range(3):
        propose_many(node, "a")
        node.ack("b")
    look(node, SPARE_MS)
    old = node.raft.last_index
    node.raft._s.progress[node.raft._s.others()[1]].probe(old)  # as if it had been lost
    assert propose_many(node, "a") == ["b", "c"]
    assert got(node.sent, old) == ["c"]


def test_the_lead_may_go_to_a_spared_one() -> None:
    node = leader_of(*ABC)
    propose_many(node, "a")
    node.ack("b")
    assert node.raft.matches()[PeerId("c")] < node.raft.commit
    node.step(HandOver(node.now_ms, frozenset({PeerId("b")})))
    assert node.raft.is_handing_over
    look(node, SPARE_MS)
    node.sent.clear()
    node.ack("c")
    assert [send.to for send in node.sent if isinstance(send.message, TimeoutNow)] == ["c"]


def test_a_group_agrees_soon_after_the_last_of_many() -> None:
    group = Group(*map(Node, ABC))
    group.pass_time(3_000)
    leader = next(node for node in group.nodes.values() if node.raft.is_leader)
    for _ in range(5):
        leader.propose(b"x", leader.raft._s.me, many=True)
        group.settle()
    group.pass_time(2 * SPARE_MS)
    assert {node.raft.commit for node in group.nodes.values()} == {leader.raft.last_index}

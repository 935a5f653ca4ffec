"""Replication, commit, reads and membership: the bugs that others shipped, by name."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest

from p2psched.core.raft.effects import Commit, Send
from p2psched.core.raft.sparing import NEWS_MS
from p2psched.core.raft.state import Role
from p2psched.model.ids import PeerId
from p2psched.model.raft import Append, AppendReply, EntryKind, Membership, ReadAsk, ReadReply
from tests.core.rig import TIMING, Group, Node, appends, entry, member


def test_an_entry_of_an_old_term_is_not_committed_by_counting() -> None:
    node = Node("a", entries=[entry(2, 1, b"old")])
    node.lead("b")
    node.ack("b", match=2)
    assert node.raft.commit == 0
    node.ack("b", match=3)  # the no-op of our own term takes the rest along
    assert node.raft.commit == 3


def test_a_leader_counts_its_own_disk_and_not_its_memory() -> None:
    node = Node("a", voters="abcde")
    node.time_out()
    for pre in (True, False):
        for voter in "bc":
            node.receive(voter, AppendReply(1, 0, True))  # no vote, no harm
            node.step_vote(voter, pre=pre)
    node.syncs_at_once = False
    node.propose(b"x")
    for voter in "bc":
        node.ack(voter)
    assert node.raft.commit == node.raft.last_index - 1
    node.sync()
    assert node.raft.commit == node.raft.last_index


def test_an_append_is_acknowledged_only_when_it_is_on_disk() -> None:
    node = Node("a", syncs_at_once=False)
    assert node.receive("b", Append(2, 1, 1, 0, 1, (entry(2, 2, b"x"),))) == []
    node.sync()
    assert [send.message for send in node.sent] == [AppendReply(2, 1, True, 2)]


def test_an_empty_append_acknowledges_no_more_than_what_is_on_disk() -> None:
    node = Node("a", syncs_at_once=False)
    node.receive("b", Append(2, 1, 1, 0, 1, (entry(2, 2, b"x"),)))
    node.sync()
    node.receive("b", Append(2, 2, 2, 0, 2, (entry(3, 2, b"y"),)))
    answers = node.receive("b", Append(2, 3, 2, 0, 3))
    assert answers == [AppendReply(2, 3, True, match=2)]


def test_a_replayed_append_drops_nothing_that_agrees() -> None:
    node = Node("a")
    first = Append(2, 1, 1, 0, 1, (entry(2, 2, b"x"),))
    node.receive("b", first)
    node.receive("b", Append(2, 2, 2, 0, 1, (entry(3, 2, b"y"),)))
    assert node.receive("b", first) == [AppendReply(2, 1, True, match=2)]
    assert node.terms() == [1, 2, 2]


def test_appends_doubled_and_in_any_order_give_the_same_log() -> None:
    rng = random.Random(1)
    entries = [entry(index, 2, b"%d" % index) for index in range(2, 12)]
    every = [Append(2, e.index - 1, 1 if e.index == 2 else 2, 0, 1, (e,)) for e in entries]
    for _ in range(30):
        node = Node("a")
        stream = every * 3
        rng.shuffle(stream)
        for append in (*stream, *every):
            node.receive("b", append)
            assert node.terms() == sorted(node.terms())
        assert node.raft.entries(2, 12) == entries


def test_a_real_conflict_drops_the_rest_and_says_so_to_the_disk() -> None:
    node = Node("a", entries=[entry(2, 1, b"x"), entry(3, 1, b"y")], syncs_at_once=False)
    node.receive("b", Append(2, 1, 1, 0, 1, (entry(2, 2, b"z"),)))
    assert node.unsynced[-1].truncate_from == 2
    assert node.terms() == [1, 2]


def test_what_was_dropped_before_its_sync_is_not_counted_as_on_disk() -> None:
    node = Node("a", syncs_at_once=False)
    node.receive("b", Append(2, 1, 1, 0, 1, (entry(2, 2, b"x"), entry(3, 2, b"y"))))
    node.receive("c", Append(3, 1, 1, 0, 1, (entry(2, 3, b"z"),)))
    node.sync()
    assert node.raft.stable_index == 2
    assert [send.message for send in node.sent] == [AppendReply(3, 1, True, 2)]


def test_a_commit_is_never_beyond_what_fits() -> None:
    node = Node("a", entries=[entry(2, 1, b"not the leader's")])
    node.receive("b", Append(3, 1, 1, 2, 1))
    assert node.raft.commit == 1


def test_an_append_of_an_old_term_is_refused_and_changes_nothing() -> None:
    node = Node("a", term=5)
    answers = node.receive("b", Append(4, 1, 1, 1, 1, (entry(2, 4, b"x"),)))
    assert answers == [AppendReply(5, 1, False, 1)]
    assert node.raft.last_index == 1
    assert node.raft.commit == 0


def test_a_follower_that_lacks_much_gets_all_of_it() -> None:
    old = [entry(index, 1, b"x" * 100) for index in range(2, 700)]
    group = Group(Node("a", entries=old), Node("b", entries=old), Node("c"))
    group.pass_time(5_000)
    terms = {tuple(node.terms()) for node in group.nodes.values()}
    assert len(terms) == 1
    assert all(node.raft.commit >= 700 for node in group.nodes.values())


def test_a_lost_append_is_sent_again() -> None:
    group = Group(Node("a"), Node("b"), Node("c"))
    group.pass_time(3_000)
    leader = next(node for node in group.nodes.values() if node.raft.is_leader)
    group.lost = lambda sender, send: isinstance(send.message, Append)
    leader.propose(b"x")
    group.settle()
    assert leader.raft.commit < leader.raft.last_index
    group.lost = lambda sender, send: False
    group.pass_time(1_000)
    assert {node.raft.commit for node in group.nodes.values()} == {leader.raft.last_index}


# --- who hears of a commit ------------------------------------------------------------------------


def leader_of_three() -> Node:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.ack("c")
    node.sent.clear()
    return node


def told(sent: Sequence[Send], commit: int) -> list[str]:
    return sorted(
        send.to
        for send in sent
        if isinstance(send.message, Append) and send.message.commit == commit
    )


def test_a_commit_is_told_at_once_to_those_whom_it_concerns() -> None:
    node = leader_of_three()
    node.propose(b"x", "a", "c")
    node.ack("b")
    assert told(node.sent, node.raft.commit) == ["c"]


def test_what_concerns_everybody_is_told_to_everybody() -> None:
    node = leader_of_three()
    node.propose(b"x", "a")
    node.propose(b"y")
    node.ack("b")
    assert node.raft.commit == node.raft.last_index
    assert told(node.sent, node.raft.commit) == ["b", "c"]


def test_the_others_hear_of_a_commit_with_the_next_append() -> None:
    node = leader_of_three()
    node.propose(b"x", "a")
    node.ack("b")
    node.ack("c")
    commit = node.raft.commit
    assert commit == node.raft.last_index
    node.sent.clear()
    node.propose(b"y", "a")
    assert told(node.sent, commit) == ["b", "c"]


def test_without_a_next_append_they_hear_of_it_soon_and_once() -> None:
    node = leader_of_three()
    node.propose(b"x", "b")
    node.ack("b")
    node.ack("c")
    before_ms = node.now_ms
    assert told(node.time_out(), node.raft.commit) == ["c"]
    assert node.now_ms - before_ms == NEWS_MS
    assert told(node.time_out(), node.raft.commit) == ["b", "c"]
    assert node.now_ms - before_ms > NEWS_MS  # that was a heartbeat


def test_who_asks_for_a_read_has_been_told_of_every_commit_before_it() -> None:
    node = leader_of_three()
    node.propose(b"x", "a")
    node.ack("b")
    sent = node.receive("c", ReadAsk(node.raft.term, 7))
    assert [message.commit for message in appends(sent)] == [node.raft.commit] * 2


def test_a_new_leader_owes_no_news_of_an_earlier_term() -> None:
    node = leader_of_three()
    node.propose(b"x", "a")
    node.ack("b")
    node.receive("b", Append(node.raft.term + 1, 0, 0, 0, 1))
    assert node.is_now(Role.FOLLOWER)
    node.wait(node.raft.due_ms)
    node.lead("b")
    assert node.raft.due_ms - node.now_ms == TIMING.heartbeat_ms


# --- reads ----------------------------------------------------------------------------------------


def test_a_read_before_the_first_commit_of_the_term_gets_no_answer() -> None:
    node = Node("a", entries=[entry(2, 1, b"x")])
    node.lead("b")
    node.read(1)
    assert [(r.read, r.index) for r in node.reads] == [(1, None)]


def test_a_read_waits_for_a_heartbeat_that_was_sent_after_it() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    old_round = node.raft._s.round
    node.read(1)
    node.receive("b", AppendReply(2, old_round, True, node.raft.last_index))
    assert node.reads == []
    node.ack("b")
    assert [(r.read, r.index) for r in node.reads] == [(1, node.raft.commit)]


def test_a_read_on_a_deposed_leader_gets_no_answer() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.read(1)
    node.receive("c", Append(3, 1, 1, 0, 1))
    assert [(r.read, r.index) for r in node.reads] == [(1, None)]


def test_a_follower_asks_the_leader_for_its_reads() -> None:
    node = Node("a")
    node.receive("b", Append(2, 1, 1, 0, 1))
    node.sent.clear()
    node.read(4)
    assert node.sent == [Send(PeerId("b"), ReadAsk(2, 4))]
    node.receive("b", ReadReply(2, 4, 1))
    assert [(r.read, r.index) for r in node.reads] == [(4, 1)]


def test_who_leads_nobody_sends_askers_away() -> None:
    node = Node("a")
    assert node.receive("b", ReadAsk(1, 9)) == [ReadReply(1, 9, -1)]


# --- membership -----------------------------------------------------------------------------------


def test_a_member_is_refused_before_the_first_commit_of_the_term() -> None:
    node = Node("a")
    node.lead("b")
    before = node.raft.last_index
    node.add("z")
    assert node.raft.last_index == before
    node.ack("b")
    node.add("z")
    assert node.raft.membership.learners == (member("z"),)


def test_one_change_of_members_at_a_time() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.add("y")
    node.add("z")
    assert node.raft.membership.learners == (member("y"),)


def test_adding_a_member_again_adds_no_entry() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.add("c")
    assert node.raft.membership.learners == ()
    assert node.raft.entries(2, 9)[-1].kind is EntryKind.NOOP


def test_a_dropped_change_of_members_does_not_count() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.add("z")
    node.receive("c", Append(3, 2, 2, 0, 1, (entry(3, 3),)))
    assert node.raft.membership.learners == ()


def test_a_lone_voter_becomes_three_when_two_others_have_caught_up() -> None:
    nodes = [Node("a", voters="a"), *(Node(name, voters="a") for name in "bc")]
    group = Group(*nodes)
    group.pass_time(1_000)
    for name in "bc":
        nodes[0].add(name)
        group.settle()
        group.pass_time(300)
        if name == "b":
            assert len(nodes[0].raft.membership.voters) == 1
    group.pass_time(2_000)
    assert [m.peer for m in nodes[0].raft.membership.voters] == ["a", "b", "c"]


def grown(group: Group, wishes: dict[str, bool]) -> list[str]:
    """The voters once these have joined the lone voter `a`, with the wish to vote or without."""
    leader = group.nodes[PeerId("a")]
    group.pass_time(1_000)
    for name, votes in wishes.items():
        leader.add(name, votes=votes)
        group.settle()
        group.pass_time(300)
    group.pass_time(2_000)
    return [m.peer for m in leader.raft.membership.voters]


def test_a_member_that_does_not_want_to_vote_is_passed_over() -> None:
    group = Group(*(Node(name, voters="a") for name in "abcd"))
    assert grown(group, {"b": False, "c": True, "d": True}) == ["a", "c", "d"]
    learners = group.nodes[PeerId("a")].raft.membership.learners
    assert learners == (member("b", votes=False),)


def test_a_lone_voter_stays_alone_while_only_one_of_two_others_wants_to_vote() -> None:
    group = Group(*(Node(name, voters="a") for name in "abc"))
    assert grown(group, {"b": False, "c": True}) == ["a"]


def test_a_learner_that_changes_its_mind_is_promoted() -> None:
    group = Group(*(Node(name, voters="a") for name in "abc"))
    assert grown(group, {"b": False, "c": True}) == ["a"]
    assert grown(group, {"b": True}) == ["a", "b", "c"]


def test_a_voter_that_comes_back_without_the_wish_to_vote_goes_on_voting() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.add("c", votes=False)
    assert node.raft.membership.voters == (member("a"), member("b"), member("c", votes=False))


def test_a_member_that_an_older_version_wrote_wants_to_vote() -> None:
    old = msgspec.msgpack.encode([[["a", "a", "a:1"]], [["b", "b", "b:1"]]])
    membership = msgspec.msgpack.decode(old, type=Membership)
    assert membership == Membership((member("a"),), (member("b"),))


@pytest.mark.parametrize("acks", ["", "b", "bc"])
def test_commit_takes_more_than_half_of_four(acks: str) -> None:
    node = Node("a", voters="abcd")
    node.time_out()
    for pre in (True, False):
        for voter in "bc":
            node.step_vote(voter, pre=pre)
    for voter in acks:
        node.ack(voter)
    assert (node.raft.commit > 0) == (len(acks) >= 2)
    assert any(isinstance(effect, Commit) for effect in node.others) == (len(acks) >= 2)


def test_a_leader_sends_heartbeats_to_all_when_due() -> None:
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.ack("c")
    sent = node.time_out()
    assert sorted(send.to for send in sent) == ["b", "c"]
    assert len(appends([send.message for send in sent])) == 2

"""A member that lost what it had acknowledged: it follows, and gives no vote before it is whole."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from p2psched.core.raft.core import Raft
from p2psched.core.raft.effects import Persist, Regained
from p2psched.core.raft.state import Role
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    HardState,
    RaftMessage,
    ReadAsk,
    ReadReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from tests.core.rig import ABC, TIMING, Group, Node, entry, founding

LOG = (founding(ABC), entry(2, 2, b"x"), entry(3, 2, b"y"))


def lost(me: str, *, term: int = 2, vote: str | None = None, entries: Sequence[Entry] = ()) -> Node:
    """A member whose log holds `entries` and held more."""
    node = Node(me)
    node.raft = Raft(
        me=PeerId(me),
        rng=random.Random(me),
        timing=TIMING,
        hard_state=HardState(term, PeerId(vote) if vote else None),
        entries=entries,
        now_ms=0,
        lost=True,
    )
    return node


def append(*entries: Entry, term: int = 2, prev: int = 0, prev_term: int = 0) -> Append:
    return Append(term, prev, prev_term, 0, 1, entries)


def asks(sent: Sequence[RaftMessage]) -> list[ReadAsk]:
    return [message for message in sent if isinstance(message, ReadAsk)]


def told(node: Node, last: int, *, term: int = 2, sender: str = "a") -> list[RaftMessage]:
    """The leader's answer to what the node asks."""
    regain = node.raft._s.regain
    assert regain is not None
    return node.receive(sender, ReadReply(term, regain.nonce, last, lost=True))


def regained(node: Node) -> bool:
    assert any(isinstance(effect, Regained) for effect in node.others) != node.raft.is_regaining
    return not node.raft.is_regaining


def test_it_never_campaigns_and_gives_no_vote_nor_a_pre_vote() -> None:
    node = lost("b", entries=LOG)
    for _ in range(5):
        assert node.time_out() == []
    assert node.is_now(Role.FOLLOWER)
    for pre in (True, False):
        (reply,) = node.receive("c", VoteRequest(9, 100, 9, pre))
        assert reply == VoteReply(2, False, pre)
    assert (node.raft.term, node.raft.vote) == (2, None)


def test_it_takes_over_from_nobody() -> None:
    node = lost("b", entries=LOG)
    node.receive("a", append(prev=3, prev_term=2))
    assert node.receive("a", TimeoutNow(2)) == []
    assert node.is_now(Role.FOLLOWER)


def test_it_keeps_its_term_and_refuses_leaders_of_older_ones() -> None:
    """It promised that to somebody, whatever it lost since."""
    node = lost("b", term=5, vote="c")
    (reply,) = node.receive("a", append(*LOG, term=4))
    assert isinstance(reply, AppendReply)
    assert (reply.ok, reply.term) == (False, 5)
    assert node.raft.last_index == 0


def test_it_asks_and_is_whole_when_it_has_all_that_its_leader_had_by_then() -> None:
    node = lost("b")
    sent = node.receive("a", append(*LOG[:2]))
    assert len(asks(sent)) == 1
    assert asks(sent)[0].lost
    told(node, 3)
    assert not regained(node)
    node.receive("a", append(LOG[2], prev=2, prev_term=2))
    assert regained(node)
    (reply,) = node.receive("c", VoteRequest(3, 3, 2, False, True))
    assert reply == VoteReply(3, True, False)


def test_entries_count_when_they_are_on_disk_and_so_does_being_whole() -> None:
    node = lost("b")
    node.syncs_at_once = False
    node.receive("a", append(*LOG))
    told(node, 3)
    assert [persist.regained for persist in node.unsynced] == [False]
    node.sync()
    (persist,) = node.unsynced
    assert persist.regained
    assert not regained(node)
    (reply,) = node.receive("c", VoteRequest(3, 3, 2, False, True))
    assert not isinstance(reply, VoteReply) or not reply.granted
    node.sync()
    assert regained(node)


def test_it_says_once_that_it_is_whole() -> None:
    node = lost("b")
    node.syncs_at_once = False
    node.receive("a", append(*LOG))
    told(node, 3)
    node.sync()
    told(node, 3)
    node.receive("a", append(prev=3, prev_term=2))
    assert sum(persist.regained for persist in node.unsynced) == 1


@pytest.mark.parametrize(
    "reply",
    [
        ReadReply(2, 0, 1, lost=True),  # to another process of it, or to somebody's read
        ReadReply(2, 0, 1),
    ],
)
def test_answers_to_other_questions_say_nothing(reply: ReadReply) -> None:
    node = lost("b")
    node.receive("a", append(*LOG[:1]))
    node.receive("a", reply)
    assert node.raft._s.regain is not None
    assert node.raft._s.regain.target is None


def test_what_another_leader_told_does_not_count() -> None:
    node = lost("b")
    node.receive("a", append(*LOG[:2]))
    told(node, 3)
    sent = node.receive("c", append(term=4, prev=2, prev_term=2))
    assert not regained(node)
    assert len(asks(sent)) == 1  # the next one is asked anew
    told(node, 2, term=2, sender="a")  # late
    assert not regained(node)
    told(node, 2, term=4, sender="c")
    assert regained(node)


def test_once_whole_it_stays_so_under_the_next_leader() -> None:
    node = lost("b")
    node.syncs_at_once = False
    node.receive("a", append(*LOG))
    told(node, 3)
    node.sync()
    node.receive("c", append(term=4, prev=1, prev_term=1))
    node.sync()
    assert regained(node)


def test_a_leader_that_takes_it_for_longer_looks_anew_when_it_is_asked() -> None:
    leader = Node("a")
    leader.lead()
    for _ in range(3):
        leader.propose(b"x")
    leader.ack("b")
    leader.ack("c")
    progress = leader.raft._s.progress[PeerId("b")]
    assert progress.match == leader.raft.last_index
    refusal = AppendReply(leader.raft.term, leader.raft._s.round, False, progress.match, 1)
    assert leader.receive("b", refusal) == []  # an answer that is overtaken, for all it knows
    (reply,) = leader.receive("b", ReadAsk(leader.raft.term, 7, lost=True))
    assert reply == ReadReply(leader.raft.term, 7, leader.raft.last_index, lost=True)
    assert progress.match == 0
    sent = leader.receive("b", refusal)
    assert any(isinstance(m, Append) and m.prev_index == 0 and m.entries for m in sent)


def test_only_the_leader_answers_and_only_in_its_term() -> None:
    leader, follower = Node("a"), Node("b")
    leader.lead()
    assert leader.receive("c", ReadAsk(leader.raft.term - 1, 7, lost=True)) == []
    assert follower.receive("c", ReadAsk(follower.raft.term, 7, lost=True)) == []


def test_a_group_makes_one_whole_that_lost_everything() -> None:
    a, c = Node("a"), Node("c")
    b = Node("b")
    group = Group(a, b, c)
    group.pass_time(2_000)
    leader = next(node for node in (a, b, c) if node.is_now(Role.LEADER))
    for _ in range(5):
        leader.propose(b"x")
    group.settle()
    victim = next(node for node in (b, a, c) if node is not leader)
    me = victim.raft._s.me
    group.nodes[me] = fresh = lost(me, term=victim.raft.term, vote=victim.raft.vote)
    fresh.now_ms = victim.now_ms
    group.pass_time(1_000)
    assert regained(fresh)
    assert fresh.terms() == leader.terms()
    assert fresh.raft.commit == leader.raft.commit


def test_two_whole_members_elect_no_leader_with_the_vote_of_the_third_alone() -> None:
    """`c` lacks what `a` and `b` committed; without `a` and with `b` damaged nobody may lead."""
    c = Node("c")
    b = lost("b", term=2)
    group = Group(b, c)
    group.pass_time(10_000)
    assert not c.is_now(Role.LEADER)
    assert b.raft.is_regaining


def test_being_whole_is_written_alone() -> None:
    node = lost("b")
    node.syncs_at_once = False
    node.receive("a", append(*LOG))
    node.sync()
    told(node, 3)
    (persist,) = node.unsynced
    assert persist == Persist(persist.token, None, None, (), regained=True)

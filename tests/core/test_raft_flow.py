"""What a follower that is slow, gone or far behind costs: bounded, and nobody else waits for it."""

from __future__ import annotations

import random

import pytest

from p2psched.core.raft.core import Raft
from p2psched.core.raft.effects import Persist, Receive, Send, SendPiece, Synced
from p2psched.core.raft.pieces import PIECES_IN_FLIGHT_MAX
from p2psched.core.raft.progress import IN_FLIGHT_APPENDS_MAX, IN_FLIGHT_BYTES_MAX, Compaction
from p2psched.core.raft.replication import APPEND_BYTES_MAX, APPEND_ENTRIES_MAX
from p2psched.core.raft.timing import Timing
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    HardState,
    RaftMessage,
    Snapshot,
    SnapshotPiece,
)
from p2psched.store.snapshots import described
from tests.core.rig import ABC, TIMING, Node, appends, entry, founding, member

A, B, C = ABC


def led() -> Node:
    """`a` leads, `b` and `c` have all of its log."""
    node = Node("a")
    node.lead("b")
    node.ack("b")
    node.ack("c")
    node.sent.clear()
    return node


def to_c(node: Node) -> list[Append]:
    """What was sent to `c` since the last look."""
    sent, node.sent = node.sent, []
    return appends([send.message for send in sent if send.to == C])


def entries_in(sent: list[Append]) -> list[Entry]:
    return [entry for append in sent for entry in append.entries]


def propose_and_commit(node: Node, payload: bytes) -> list[RaftMessage]:
    """One entry, committed by `b`; what is sent because of it."""
    node.propose(payload)
    sent = [send.message for send in node.sent]
    return sent + node.ack("b")


def test_bytes_on_their_way_to_one_follower_are_bounded() -> None:
    node = led()
    for _ in range(100):
        node.propose(b"x" * 100_000)
    size = sum(len(e.payload) for e in entries_in(to_c(node)))
    assert IN_FLIGHT_BYTES_MAX - 100_100 <= size <= IN_FLIGHT_BYTES_MAX + 100_100
    node.ack("b")
    assert node.raft.commit == node.raft.last_index  # and nobody waited for it


def test_appends_on_their_way_to_one_follower_are_bounded() -> None:
    node = led()
    for _ in range(IN_FLIGHT_APPENDS_MAX + 100):
        node.propose(b"x")
    assert len(to_c(node)) == IN_FLIGHT_APPENDS_MAX


def test_an_answer_lets_as_much_follow_as_it_took_off_the_way() -> None:
    node = led()
    for _ in range(100):
        node.propose(b"x" * 100_000)
    sent = to_c(node)
    first = sent[0].entries[-1].index
    (more,) = appends(node.ack("c", match=first))
    assert more.entries
    assert more.prev_index == sent[-1].entries[-1].index


def test_entries_follow_each_other_without_waiting_for_answers() -> None:
    node = led()
    for _ in range(20):
        node.propose(b"x")
    assert [e.index for e in entries_in(to_c(node))] == list(range(3, 23))


def test_a_silent_follower_costs_no_message_but_heartbeats_without_entries() -> None:
    node = led()
    for _ in range(10):
        node.wait(TIMING.heartbeat_ms)
        node.ack("b")
    node.sent.clear()
    said: list[RaftMessage] = []
    for _ in range(200):
        node.propose(b"x")
        node.ack("b")
        said += [send.message for send in node.sent if send.to == C]
    assert said == []
    (heartbeat,) = appends([send.message for send in node.time_out() if send.to == C])
    assert heartbeat.entries == ()
    assert node.raft.commit == node.raft.last_index


def test_a_follower_that_comes_back_gets_what_it_missed() -> None:
    node = led()
    node.wait(TIMING.election_ms_min)
    node.ack("b")
    for _ in range(300):
        propose_and_commit(node, b"x")
    (heartbeat,) = appends([send.message for send in node.time_out() if send.to == C])
    answer = AppendReply(node.raft.term, heartbeat.round, True, heartbeat.prev_index)
    sent = appends(node.receive("c", answer))
    assert len(entries_in(sent)) == APPEND_ENTRIES_MAX


# --- conflicts ------------------------------------------------------------------------------------


def probes_until_it_fits(leader: Node, follower: Node) -> int:
    """How many appends the leader sends before the follower agrees."""
    sent = appends([s.message for s in leader.sent if s.to == C])[-1:]
    for count in range(1, 10_000):
        (append,) = sent
        (answer,) = follower.receive("a", append)
        assert isinstance(answer, AppendReply)
        if answer.ok:
            return count
        sent = appends(leader.receive("c", answer))[-1:]
    raise AssertionError("they never agree")


def log_of(*terms: tuple[int, int]) -> list[Entry]:
    """From entry 2 on: runs of (term, how many)."""
    flat = [term for term, count in terms for _ in range(count)]
    return [entry(index, term, b"x") for index, term in enumerate(flat, start=2)]


@pytest.mark.parametrize(
    ("ours", "theirs", "probes_max"),
    [
        ([(1, 10_000)], [], 2),  # it lacks all
        ([(1, 10), (5, 10_000)], [(1, 10), (2, 5_000)], 3),  # a term that we never had
        ([(1, 10), (5, 10_000)], [(1, 10), (2, 9), (3, 900), (4, 5_000)], 5),
        ([(1, 10), (3, 10_000)], [(1, 10), (2, 10), (3, 5_000)], 4),
        ([(1, 5_000), (6, 1)], [(1, 20_000)], 2),
    ],
)
def test_a_leader_steps_over_whole_terms_until_the_logs_agree(
    ours: list[tuple[int, int]], theirs: list[tuple[int, int]], probes_max: int
) -> None:
    leader = Node("a", entries=log_of(*ours), term=8)
    leader.lead("b")
    follower = Node("c", entries=log_of(*theirs), term=8)
    assert probes_until_it_fits(leader, follower) <= probes_max


def test_logs_drawn_at_random_agree_after_one_probe_a_term_at_most() -> None:
    rng = random.Random(5)
    for _ in range(200):
        common = [(1, rng.randint(0, 20))]
        one = common + [(term, rng.randint(0, 20)) for term in rng.sample(range(2, 8), 4)]
        other = common + [(term, rng.randint(0, 20)) for term in rng.sample(range(2, 8), 4)]
        leader = Node("a", entries=log_of(*sorted(one)), term=8)
        leader.lead("b")
        follower = Node("c", entries=log_of(*sorted(other)), term=8)
        assert probes_until_it_fits(leader, follower) <= 11


# --- far behind -----------------------------------------------------------------------------------

BEHIND = 100_000
PAYLOAD = b"p" * 100
KEPT = Compaction(tail_entries=1_000)


def raft_of(me: str, entries: list[Entry], snapshot: Snapshot | None, term: int) -> Raft:
    return Raft(
        me=PeerId(me),
        rng=random.Random(me),
        timing=Timing(),
        hard_state=HardState(term, None),
        entries=entries,
        now_ms=0,
        snapshot=snapshot,
        compaction=KEPT,
    )


class Catching:
    """A leader and one follower; what is on its way between them is looked at before it arrives."""

    def __init__(self, leader: Node, follower: Raft, state: bytes) -> None:
        self.leader, self.follower, self.state = leader, follower, state
        self.appends_max = self.append_bytes_max = self.pieces_max = self.stored_max = 0
        self.messages = self.taken = 0

    def run(self) -> None:
        leader, waiting = self.leader, [s.message for s in self.leader.time_out() if s.to == C]
        while self.follower.last_index < leader.raft.last_index or waiting:
            flight = appends(waiting)
            self.messages += len(waiting)
            size = sum(len(e.payload) for e in entries_in(flight))
            pieces = sum(isinstance(message, SnapshotPiece) for message in waiting)
            self.appends_max = max(self.appends_max, len(flight))
            self.append_bytes_max = max(self.append_bytes_max, size)
            self.pieces_max = max(self.pieces_max, pieces)
            waiting = [reply for message in waiting for reply in self._take(message)]
            waiting = [more for reply in waiting for more in self._answer(reply)]

    def _take(self, message: RaftMessage) -> list[RaftMessage]:
        replies: list[RaftMessage] = []
        todo = self.follower.step(Receive(self.leader.now_ms, A, message))
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, Send):
                replies.append(effect.message)
            elif isinstance(effect, Persist):
                held = sum(len(e.payload) for e in effect.entries)
                self.stored_max = max(self.stored_max, held)
                todo += self.follower.step(Synced(self.leader.now_ms, effect.token))
        return replies

    def _answer(self, reply: RaftMessage) -> list[RaftMessage]:
        self.leader.others.clear()
        sent = self.leader.receive("c", reply)
        for effect in self.leader.others:
            if isinstance(effect, SendPiece):
                data = self.state[effect.offset : effect.offset + effect.size]
                head = (effect.term, effect.round, effect.snapshot, effect.offset)
                sent.append(SnapshotPiece(*head, data))
        return sent


def test_a_follower_far_behind_catches_up_by_appends_with_little_on_its_way() -> None:
    entries = [entry(index, 1, PAYLOAD) for index in range(2, BEHIND)]
    leader = Node("a", entries=entries)
    leader.lead("b")
    leader.ack("b")
    catching = Catching(leader, raft_of("c", [founding("abc")], None, 1), b"")
    catching.run()
    assert catching.append_bytes_max <= IN_FLIGHT_BYTES_MAX + APPEND_BYTES_MAX
    assert catching.stored_max <= APPEND_BYTES_MAX + len(PAYLOAD)
    assert catching.messages <= 2 * BEHIND / APPEND_ENTRIES_MAX + 10


def test_a_follower_far_behind_takes_a_snapshot_and_the_log_behind_it() -> None:
    state = random.Random(1).randbytes(3_000_000)
    leader = Node("a")
    members = leader.raft.membership
    snapshot = described(Snapshot(BEHIND, 1, 0, members), state)
    tail = [entry(index, 1, PAYLOAD) for index in range(BEHIND + 1, BEHIND + 5_000)]
    leader.raft = raft_of("a", tail, snapshot, 1)
    leader.lead("b")
    leader.ack("b")
    assert member("c") in members.voters
    catching = Catching(leader, raft_of("c", [founding("abc")], None, 1), state)
    catching.run()
    assert catching.follower.snapshot == snapshot
    assert 1 < catching.pieces_max <= PIECES_IN_FLIGHT_MAX
    assert catching.append_bytes_max <= IN_FLIGHT_BYTES_MAX + APPEND_BYTES_MAX
    assert leader.raft.commit == leader.raft.last_index

"""Snapshots in the Raft core: what leaves the log, who gets one, and who may speak of it when."""

from __future__ import annotations

import random
from collections.abc import Sequence

from p2psched.core.raft.core import Raft
from p2psched.core.raft.effects import (
    Compact,
    Installed,
    Persist,
    Receive,
    Send,
    SendPiece,
    SnapshotSaved,
    StorePiece,
    Synced,
)
from p2psched.core.raft.pieces import PIECES_IN_FLIGHT_MAX
from p2psched.core.raft.progress import Compaction
from p2psched.core.raft.sparing import NEWS_MS
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    HardState,
    Membership,
    RaftMessage,
    Snapshot,
    SnapshotPiece,
    SnapshotReply,
)
from p2psched.store.snapshots import described
from tests.core.rig import ABC, TIMING, Node, appends, entry, member

A, B, C = ABC
STATE = bytes(range(256)) * 10
TINY = Compaction(tail_entries=0, tail_bytes=0, laggard_bytes=0, piece_bytes=256)
TAIL = Compaction(tail_entries=2, tail_bytes=10_000, laggard_bytes=10_000, piece_bytes=256)
MEMBERS = Membership(tuple(map(member, "abc")), (member("d"),))


def snapshot_at(index: int, term: int = 1) -> Snapshot:
    return described(Snapshot(index, term, 50, MEMBERS), STATE)


class SnapshotNode(Node):
    """A node whose disk gave back a snapshot, and that keeps little of its log."""

    def __init__(
        self,
        me: str,
        *,
        snapshot: Snapshot | None = None,
        entries: Sequence[Entry] = (),
        term: int = 1,
        compaction: Compaction = TINY,
        syncs_at_once: bool = True,
    ) -> None:
        before = () if snapshot is not None else entries
        super().__init__(me, entries=before, term=term, syncs_at_once=syncs_at_once)
        if snapshot is None:
            entries = self.raft.entries(1, self.raft.last_index + 1)
        self.raft = Raft(
            me=PeerId(me),
            rng=random.Random(me),
            timing=TIMING,
            hard_state=HardState(term, None),
            entries=entries,
            now_ms=0,
            snapshot=snapshot,
            compaction=compaction,
        )

    def save(self, index: int) -> None:
        head = described(self.raft.describe(index), STATE)
        self.step(SnapshotSaved(self.now_ms, head))

    @property
    def pieces(self) -> list[SendPiece]:
        return [effect for effect in self.others if isinstance(effect, SendPiece)]

    @property
    def installed(self) -> list[Installed]:
        return [effect for effect in self.others if isinstance(effect, Installed)]

    def serve(self, follower: Node, sender: str) -> list[RaftMessage]:
        """Bring all pieces that are on their way; what the follower says to them."""
        said: list[RaftMessage] = []
        for piece in self.pieces:
            data = STATE[piece.offset : piece.offset + piece.size]
            message = SnapshotPiece(piece.term, piece.round, piece.snapshot, piece.offset, data)
            said += follower.receive(sender, message)
        self.others.clear()
        return said


def leader_with(count: int, compaction: Compaction = TINY) -> SnapshotNode:
    """A leader whose entries up to the last are committed by b; c has said nothing."""
    node = SnapshotNode("a", compaction=compaction)
    node.lead("b")
    for number in range(count):
        node.propose(b"%d" % number)
    node.ack("b")
    assert node.raft.commit == node.raft.last_index == count + 2
    return node


def test_what_a_durable_snapshot_covers_leaves_the_log_and_its_term_stays_known() -> None:
    node = leader_with(10)
    node.save(8)
    assert node.raft.base_index == 8
    assert node.raft.term_at(8) == 2
    assert node.raft.term_at(7) is None
    assert node.raft.last_index == 12
    assert [e for e in node.others if isinstance(e, Compact)]


def test_a_tail_stays_behind_the_snapshot_for_those_who_are_a_little_behind() -> None:
    node = leader_with(10, TAIL)
    node.wait(TIMING.election_ms_max + 1)  # c is not live
    node.ack("b")
    node.save(8)
    assert node.raft.base_index == 6


def test_a_live_follower_that_lags_keeps_entries_in_the_log_as_far_as_a_bound_allows() -> None:
    node = leader_with(10, TAIL)
    node.ack("c", match=3)
    node.save(8)
    assert node.raft.base_index == 3


def test_news_for_a_follower_that_lacks_what_has_left_the_log_come_with_its_snapshot() -> None:
    """c answers, and takes nothing; the log is cut while it is owed a commit that didn't concern
    it."""
    leader, _ = follower_and_leader()
    leader.receive("c", AppendReply(2, leader.raft._s.round, True, 10))
    progress = leader.raft._s.progress[C]
    assert not progress.probing
    leader.propose(b"x", "a")
    leader.ack("b")
    progress.next = 11
    due_ms = leader.raft.due_ms
    assert due_ms - leader.now_ms == NEWS_MS
    leader.save(leader.raft.commit)
    assert progress.next < leader.raft._s.log.first
    assert [news.to for news in leader.time_out()] == ["b"]
    assert leader.now_ms == due_ms
    leader.others.clear()
    leader.time_out()  # a heartbeat
    assert {piece.snapshot.index for piece in leader.pieces} == {leader.raft.commit}


def test_an_older_snapshot_than_the_newest_changes_nothing() -> None:
    node = leader_with(10)
    older = described(node.raft.describe(5), STATE)
    node.save(8)
    node.others.clear()
    node.step(SnapshotSaved(node.now_ms, older))
    assert node.others == []
    assert (node.raft.base_index, node.raft.snapshot) != (5, older)


def test_membership_of_what_was_dropped_lives_in_the_snapshot() -> None:
    node = leader_with(3)
    before = node.raft.membership
    node.save(node.raft.commit)
    assert node.raft.membership == before
    back = SnapshotNode("a", snapshot=snapshot_at(9), entries=[entry(10, 1)])
    assert back.raft.membership == MEMBERS
    assert (back.raft.commit, back.raft.last_index, back.raft.base_index) == (9, 10, 9)


def test_a_follower_that_lacks_dropped_entries_is_sent_the_snapshot_in_a_few_pieces() -> None:
    node = leader_with(10)
    node.save(10)
    node.others.clear()
    node.receive("c", AppendReply(2, 1, False, match=1, conflict_index=1))
    refused = node.raft._s.progress[C].next - 1
    node.receive("c", AppendReply(2, 1, False, match=refused, conflict_index=2))
    first = node.pieces
    assert 1 <= len(first) <= PIECES_IN_FLIGHT_MAX
    assert all(piece.size <= TINY.piece_bytes and piece.to == C for piece in first)
    # It is still a follower with heartbeats, which fit whatever log.
    beats = appends([s.message for s in node.time_out() if s.to == C])
    assert [(beat.prev_index, beat.prev_term, beat.entries) for beat in beats] == [(0, 0, ())]


def follower_and_leader(*, syncs_at_once: bool = True) -> tuple[SnapshotNode, SnapshotNode]:
    leader = leader_with(10)
    leader.save(10)
    follower = SnapshotNode("c", syncs_at_once=syncs_at_once)
    leader.others.clear()
    progress = leader.raft._s.progress[C]
    progress.next, progress.match = 2, 0
    leader.time_out()
    return leader, follower


def test_a_whole_snapshot_takes_the_place_of_the_log_and_replication_goes_on_behind_it() -> None:
    leader, follower = follower_and_leader()
    for _ in range(20):
        for message in leader.serve(follower, "a"):
            leader.receive("c", message)
        if follower.installed:
            break
    assert (follower.raft.base_index, follower.raft.commit) == (10, 10)
    assert follower.raft.term_at(10) == 2
    progress = leader.raft._s.progress[C]
    assert (progress.match, progress.sending) == (10, None)
    (behind,) = appends([s.message for s in leader.sent if s.to == C])
    assert [e.index for e in behind.entries] == [11, 12]
    replies = follower.receive("a", behind)
    assert [r.match for r in replies if isinstance(r, AppendReply)] == [12]


def test_nothing_is_said_of_a_snapshot_before_it_is_on_disk() -> None:
    leader, follower = follower_and_leader(syncs_at_once=False)
    offset, head = 0, leader.raft.snapshot
    assert head is not None
    while offset < head.size:
        data = STATE[offset : offset + 500]
        said = follower.receive("a", SnapshotPiece(2, 1, head, offset, data))
        assert said == []
        offset += len(data)
        if offset < head.size:
            follower.sync()
    assert (follower.installed, follower.raft.stable_index) == ([], 0)
    # A heartbeat meanwhile is answered with what was sure before, and no more.
    said = follower.receive("a", Append(2, 10, 2, 10, 5))
    assert [r.match for r in said if isinstance(r, AppendReply)] == [0]
    follower.sent.clear()
    writes = [p for p in follower.unsynced if p.install is not None]
    assert [p.install for p in writes] == [head]
    follower.sync()
    done = [s.message for s in follower.sent if isinstance(s.message, SnapshotReply)]
    assert [(reply.index, reply.done) for reply in done] == [(10, True)]
    assert follower.installed == [Installed(head)]
    assert follower.raft.stable_index == 10


def test_of_two_snapshots_that_one_sync_made_durable_only_the_newer_is_restored() -> None:
    """The file of the older one is gone by then: the newer has taken its place on the disk."""
    _, follower = follower_and_leader(syncs_at_once=False)
    for head in (snapshot_at(10, 2), snapshot_at(12, 2)):
        for offset in range(0, head.size, 500):
            data = STATE[offset : offset + 500]
            follower.receive("a", SnapshotPiece(2, 1, head, offset, data))
    follower.sync()
    assert follower.installed == [Installed(snapshot_at(12, 2))]
    assert follower.raft.snapshot == snapshot_at(12, 2)
    assert follower.raft.stable_index == 12


def test_damaged_bytes_are_not_taken_and_the_first_byte_is_asked_for_again() -> None:
    follower = SnapshotNode("c")
    head = snapshot_at(10, term=2)
    whole = SnapshotPiece(2, 1, head, 0, STATE[:-1] + b"?")
    assert follower.receive("a", whole) == [SnapshotReply(2, 1, 10, 0, done=False)]
    assert (follower.raft.commit, follower.raft.base_index) == (0, 0)
    right = SnapshotPiece(2, 1, head, 0, STATE)
    assert follower.receive("a", right) == [SnapshotReply(2, 1, 10, 0, done=True)]
    assert follower.raft.base_index == 10


def test_pieces_out_of_order_or_too_long_are_passed_over() -> None:
    follower = SnapshotNode("c", syncs_at_once=False)
    head = snapshot_at(10, term=2)
    for piece in (
        SnapshotPiece(2, 1, head, 500, STATE[500:600]),
        SnapshotPiece(2, 1, head, 0, STATE + b"more"),
        SnapshotPiece(2, 1, head, 0, b""),
    ):
        follower.receive("a", piece)
    follower.sync()
    assert not any(isinstance(e, Persist) and e.piece for e in follower.others)
    follower.receive("a", SnapshotPiece(2, 1, head, 0, STATE[:100]))
    stored = [p.piece for p in follower.unsynced if p.piece is not None]
    assert stored == [StorePiece(head, 0, STATE[:100])]


def test_a_snapshot_of_what_the_log_holds_is_only_agreed_to() -> None:
    follower = SnapshotNode("c", entries=[entry(2, 1), entry(3, 2), entry(4, 2)], term=2)
    said = follower.receive("a", SnapshotPiece(2, 1, snapshot_at(3, term=2), 0, STATE))
    assert [r.done for r in said if isinstance(r, SnapshotReply)] == [True]
    assert (follower.raft.commit, follower.raft.last_index) == (3, 4)
    assert follower.installed == []


def test_a_leader_of_an_older_term_learns_of_the_newer_one() -> None:
    follower = SnapshotNode("c", term=5)
    said = follower.receive("a", SnapshotPiece(2, 1, snapshot_at(3), 0, STATE))
    assert [(r.term, r.done) for r in said if isinstance(r, SnapshotReply)] == [(5, False)]


def test_entries_from_before_the_base_agree_and_are_passed_over() -> None:
    follower = SnapshotNode("c", snapshot=snapshot_at(10), entries=[entry(11, 1)])
    old = [entry(index, 1) for index in range(8, 13)]
    (reply,) = follower.receive("a", Append(2, 7, 1, 12, 1, tuple(old)))
    assert isinstance(reply, AppendReply)
    assert (reply.ok, reply.match) == (True, 12)
    assert (follower.raft.base_index, follower.raft.last_index) == (10, 12)


def test_a_vote_is_given_by_the_base_where_there_are_no_entries() -> None:
    node = SnapshotNode("c", snapshot=snapshot_at(10, term=4), term=4)
    sent: list[Send] = node.time_out()
    asked = [(s.message.last_index, s.message.last_term) for s in sent if s.to == B]  # type: ignore[union-attr]
    assert asked == [(10, 4)]
    assert node.raft.step(Synced(0, 0)) == []
    assert node.raft.step(Receive(0, A, Append(4, 10, 4, 10, 1)))

"""Snapshots on their way: what a leader sends again, where it goes on, and when it begins anew."""

from __future__ import annotations

from p2psched.model.raft import AppendReply, SnapshotPiece, SnapshotReply
from tests.core.rig import ABC
from tests.core.test_raft_snapshots import STATE, TAIL, SnapshotNode, follower_and_leader

A, B, C = ABC


def test_a_lost_piece_is_sent_again_from_there_on() -> None:
    leader, follower = follower_and_leader()
    lost = leader.pieces
    assert lost
    leader.others.clear()
    leader.receive("c", AppendReply(2, 1, True, 0))
    leader.others.clear()
    for _ in range(10):
        leader.wait(100)
        leader.receive("c", AppendReply(2, leader.raft._s.round, True, 0))
        leader.receive("b", AppendReply(2, leader.raft._s.round, True, 12))
        leader.time_out()
    assert leader.pieces[0].offset == 0
    assert follower.raft.commit == 0


def test_a_follower_that_restarted_is_sent_the_snapshot_from_its_start() -> None:
    leader, follower = follower_and_leader()
    for message in leader.serve(follower, "a"):
        leader.receive("c", message)
    assert leader.pieces[0].offset > 0
    fresh = SnapshotNode("c")
    (said, *_) = leader.serve(fresh, "a")
    assert said == SnapshotReply(2, said.round, 10, 0, done=False)  # type: ignore[union-attr]
    leader.receive("c", said)
    assert leader.pieces[0].offset == 0


def test_a_follower_that_restarted_and_took_a_late_piece_is_sent_what_it_wants() -> None:
    """It never says that it has nothing, and wants less than it acknowledged before it died."""
    leader, follower = follower_and_leader()
    head = leader.raft.snapshot
    assert head is not None
    for _ in range(2):
        for message in leader.serve(follower, "a"):
            leader.receive("c", message)
    follower = SnapshotNode("c")
    follower.receive("a", SnapshotPiece(2, 1, head, 0, STATE[:256]))
    for _ in range(40):
        for message in leader.serve(follower, "a"):
            leader.receive("c", message)
        leader.wait(100)
        leader.receive("b", AppendReply(2, leader.raft._s.round, True, 12))
        leader.time_out()
    assert follower.raft.base_index == 10


def test_what_an_earlier_leader_has_sent_is_not_sent_again() -> None:
    leader, follower = follower_and_leader()
    head = leader.raft.snapshot
    assert head is not None
    for offset in range(0, 2_000, 500):
        follower.receive("a", SnapshotPiece(2, 1, head, offset, STATE[offset : offset + 500]))
    (said, *_) = leader.serve(follower, "a")
    assert said == SnapshotReply(2, said.round, 10, 2_000, done=False)  # type: ignore[union-attr]
    leader.receive("c", said)
    assert leader.pieces[0].offset == 2_000


def next_snapshot(leader: SnapshotNode) -> None:
    """Of one more entry."""
    leader.propose(b"more")
    leader.ack("b")
    leader.save(leader.raft.commit)


def test_a_snapshot_is_sent_to_its_end_though_a_newer_one_was_made() -> None:
    leader, follower = follower_and_leader()
    for message in leader.serve(follower, "a"):
        leader.receive("c", message)
    next_snapshot(leader)
    for _ in range(3):
        for message in leader.serve(follower, "a"):
            leader.receive("c", message)
    assert follower.raft.base_index == 10


def test_a_follower_that_took_an_older_snapshot_finds_in_the_log_what_comes_next() -> None:
    leader, _ = follower_and_leader()
    leader.raft._s.compaction = TAIL
    for _ in range(5):
        leader.propose(b"more")
    leader.ack("b")
    leader.save(leader.raft.commit)
    assert leader.raft.base_index == 10


def test_the_newest_snapshot_begins_at_its_start_when_two_were_made_since() -> None:
    leader, follower = follower_and_leader()
    for message in leader.serve(follower, "a"):
        leader.receive("c", message)
    for _ in range(2):
        leader.others.clear()
        next_snapshot(leader)
        leader.time_out()
    newest = leader.raft.commit
    assert [(p.snapshot.index, p.offset) for p in leader.pieces][:1] == [(newest, 0)]


def test_the_newest_snapshot_begins_where_nothing_moves() -> None:
    leader, follower = follower_and_leader()
    for message in leader.serve(follower, "a"):
        leader.receive("c", message)
    next_snapshot(leader)
    leader.others.clear()
    for _ in range(10):
        leader.wait(100)
        leader.receive("b", AppendReply(2, leader.raft._s.round, True, leader.raft.commit))
        leader.time_out()
    newest = leader.raft.commit
    assert [(p.snapshot.index, p.offset) for p in leader.pieces][-1:] == [(newest, 0)]

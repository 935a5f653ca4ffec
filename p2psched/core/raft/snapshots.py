"""Snapshots stand for a prefix of the log (Ongaro, chapter 5).

Each member makes its own, of what it has applied; when one is durable, the entries that it covers
leave the log but for a tail. A follower that needs what its leader has dropped takes the leader's
snapshot in pieces. It puts it in the place of its own log only when it is whole, and says so only
when it is on disk. Membership and the term of the last entry live in the snapshot.
"""

from __future__ import annotations

from p2psched.core.raft import regain
from p2psched.core.raft.effects import Commit, Compact, StorePiece
from p2psched.core.raft.pieces import on_offset
from p2psched.core.raft.progress import Incoming
from p2psched.core.raft.replication import follow, on_match
from p2psched.core.raft.state import LEADER, RaftState
from p2psched.model.ids import PeerId
from p2psched.model.raft import Snapshot, SnapshotPiece, SnapshotReply

# --- our own --------------------------------------------------------------------------------------


def on_saved(s: RaftState, snapshot: Snapshot) -> None:
    """A snapshot of ours is on disk. One that was overtaken by a newer one changes nothing."""
    newest = s.snapshot.index if s.snapshot is not None else 0
    if snapshot.index <= max(newest, s.log.base.index):
        return
    assert s.log.term_at(snapshot.index) == snapshot.term
    s.note_snapshot(snapshot)
    drop_tail(s)
    s.emit(Compact(snapshot))


def drop_tail(s: RaftState) -> None:
    """Let go of entries that the newest snapshot covers, but for a tail: see `Compaction`."""
    if s.snapshot is None:
        return
    bounds, log, upto = s.compaction, s.log, s.snapshot.index
    keep = log.tail_start(upto, count_max=bounds.tail_entries, bytes_max=bounds.tail_bytes)
    lacking = _lacking(s)
    if lacking < keep:
        least = log.tail_start(upto, count_max=upto, bytes_max=bounds.laggard_bytes)
        keep = max(lacking, min(keep, least))
    s.drop_until(keep - 1)


def _lacking(s: RaftState) -> int:
    """The first entry that a live follower may lack, of those that the log can still serve; or
    will, when it has the snapshot that it is taking."""
    heard_since = s.now_ms - s.timing.election_ms_max
    wanted = [
        (progress.match if progress.sending is None else progress.sending.snapshot.index) + 1
        for progress in s.progress.values()
        if progress.contact_ms >= heard_since
    ]
    return min(wanted, default=s.log.last_index + 1)


# --- leader ---------------------------------------------------------------------------------------


def on_reply(s: RaftState, sender: PeerId, reply: SnapshotReply) -> None:
    progress = s.progress.get(sender)
    if s.role is not LEADER or progress is None or reply.term != s.term:
        return
    progress.contact_ms = s.now_ms
    progress.round = max(progress.round, reply.round)
    if reply.done:
        on_match(s, sender, progress, reply.index)
    else:
        on_offset(s, sender, progress, reply.index, reply.offset)


# --- follower -------------------------------------------------------------------------------------


def on_piece(s: RaftState, sender: PeerId, piece: SnapshotPiece) -> None:
    snapshot, done, offset = piece.snapshot, False, 0
    if piece.term < s.term:
        s.send(sender, SnapshotReply(s.term, piece.round, snapshot.index, offset, done))
        return
    follow(s, sender)
    if snapshot.index <= s.commit or s.log.term_at(snapshot.index) == snapshot.term:
        done = True
        _agree(s, snapshot)
    else:
        done = _take(s, piece)
        offset = s.incoming.offset if s.incoming is not None else 0
    s.promise(sender, SnapshotReply(s.term, piece.round, snapshot.index, offset, done))
    if done:
        regain.on_agreed(s, sender, snapshot.index, is_heartbeat=False)


def _agree(s: RaftState, snapshot: Snapshot) -> None:
    """Our log holds all that it stands for: nothing is needed of it."""
    s.incoming = None
    if snapshot.index > s.commit:
        s.commit = snapshot.index
        s.emit(Commit(s.commit))


def _take(s: RaftState, piece: SnapshotPiece) -> bool:
    """Take the next bytes; any others are passed over. True with the last of them: then the
    snapshot stands for our log."""
    snapshot, incoming = piece.snapshot, s.incoming
    if incoming is None or incoming.snapshot != snapshot:
        incoming = s.incoming = Incoming(snapshot)
    end = piece.offset + len(piece.data)
    if piece.offset != incoming.offset or not piece.offset < end <= snapshot.size:
        return False
    s.store_piece(StorePiece(snapshot, piece.offset, piece.data))
    incoming.digest.update(piece.data)
    incoming.offset = end
    if end < snapshot.size:
        return False
    s.incoming = None
    if incoming.digest.digest() != snapshot.digest:
        return False  # and the leader is asked for the first byte again
    s.install(snapshot)
    s.emit(Commit(s.commit))
    return True

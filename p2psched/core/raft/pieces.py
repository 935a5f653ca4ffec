"""A leader sends its snapshot to followers that need entries which it has dropped.

A few pieces are in flight to each such follower; where nothing moves, all is sent again from where
it said last that it wants to go on. That can be before what it acknowledged once: it died since,
and took what was late on its way. A snapshot is sent to its end though a newer one was made: a
leader under load may make them faster than they arrive. The driver keeps two; after one more, or
where nothing moves, the newest begins at its start. The bytes stay with the driver: the core only
says which. Nobody else waits: heartbeats and entries of the others go on.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.raft.effects import SendPiece
from p2psched.core.raft.progress import Progress, Sending
from p2psched.core.raft.state import RaftState
from p2psched.model.ids import PeerId
from p2psched.model.raft import Snapshot

PIECES_IN_FLIGHT_MAX: Final = 4  # to one follower; one to a follower that doesn't answer


def send_pieces(s: RaftState, peer: PeerId, progress: Progress) -> None:
    """Begin, go on, or begin again where nothing moved for an election timeout."""
    snapshot = s.snapshot
    assert snapshot is not None, "only entries that a snapshot covers are dropped"
    assert snapshot.size > 0
    sending = progress.sending
    stands = sending is not None and s.now_ms - sending.moved_ms >= s.timing.election_ms_min
    if sending is None or (
        sending.snapshot != snapshot and (stands or _is_gone(sending, snapshot))
    ):
        sending = progress.sending = Sending(snapshot, s.now_ms)
    elif stands:
        sending.acked = sending.next = sending.wanted
        sending.moved_ms = s.now_ms
    snapshot = sending.snapshot
    answers = progress.contact_ms >= sending.moved_ms
    window = s.compaction.piece_bytes * (PIECES_IN_FLIGHT_MAX if answers else 1)
    while sending.next < min(snapshot.size, sending.acked + window):
        size = min(s.compaction.piece_bytes, snapshot.size - sending.next)
        s.emit(SendPiece(peer, s.term, s.round, snapshot, sending.next, size))
        sending.next += size


def _is_gone(sending: Sending, newest: Snapshot) -> bool:
    """Two were made since it was begun."""
    if sending.newer == sending.snapshot:
        sending.newer = newest
    return sending.newer != newest


def on_offset(s: RaftState, peer: PeerId, progress: Progress, index: int, offset: int) -> None:
    """The follower has this much, and not the whole."""
    sending = progress.sending
    if sending is None or sending.snapshot.index != index or offset >= sending.snapshot.size:
        return
    sending.wanted = offset
    if offset > sending.acked:  # perhaps more than we sent: an earlier leader sent it
        sending.acked, sending.next = offset, max(sending.next, offset)
        sending.moved_ms = s.now_ms
    elif offset == 0 and sending.acked:  # it began anew: its process did, or bytes were damaged
        sending.acked = sending.next = 0
        sending.moved_ms = s.now_ms
    send_pieces(s, peer, progress)

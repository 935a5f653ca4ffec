"""What a leader knows of each other member, and what is on its way of a snapshot at either end."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

import msgspec

from p2psched.model.limits import KIB, MIB
from p2psched.model.raft import Room, Snapshot

DIGEST_BYTES: Final = 16


class Compaction(msgspec.Struct, frozen=True):
    """Bounds of snapshots on the wire, and of what stays in the log in spite of them. Entries up
    to the first two bounds together stay behind a snapshot, so that a follower that is a little
    behind needs no snapshot; for a live follower that lacks more, as far as the third."""

    tail_entries: int = 1_000
    tail_bytes: int = 1 * MIB
    laggard_bytes: int = 8 * MIB
    piece_bytes: int = 256 * KIB

    @staticmethod
    def beside(snapshot_log_bytes: int) -> Compaction:
        """Where a snapshot is made after so much, what stays in the log is less."""
        usual = Compaction()
        return Compaction(
            tail_bytes=min(usual.tail_bytes, snapshot_log_bytes // 4),
            laggard_bytes=min(usual.laggard_bytes, snapshot_log_bytes // 2),
        )


class Sending:
    """A snapshot on its way to a follower; bytes before `acked` are with it."""

    __slots__ = ("acked", "moved_ms", "next", "snapshot")

    def __init__(self, snapshot: Snapshot, now_ms: int) -> None:
        self.snapshot = snapshot
        self.acked = 0
        self.next = 0  # bytes before it were sent
        self.moved_ms = now_ms  # when something was acknowledged, or all of it sent again


class Incoming:
    """A snapshot that comes in: how far, and the digest of that much."""

    __slots__ = ("digest", "offset", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.offset = 0
        self.digest = hashlib.blake2b(digest_size=DIGEST_BYTES)


class Progress:
    """What the leader knows of one other member. `probing`: one append at a time until it fits."""

    __slots__ = (
        "able_ms",
        "contact_ms",
        "match",
        "next",
        "probe_sent",
        "probing",
        "room",
        "round",
        "sending",
        "told",
        "unacked",
    )

    def __init__(self, next_index: int, now_ms: int) -> None:
        self.match = 0
        self.next = next_index
        self.probing = True
        self.probe_sent = False
        self.unacked: deque[int] = deque()  # last indices of appends in flight
        self.contact_ms = now_ms
        self.able_ms = now_ms  # heard, and its disk takes what is written
        self.room: Room | None = None  # of its disk; None: it has not said
        self.round = 0  # newest heartbeat round that it answered
        self.told = 0  # the commit index that it was told last
        self.sending: Sending | None = None  # what it lacks is not in our log any more

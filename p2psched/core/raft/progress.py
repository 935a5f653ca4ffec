"""What a leader knows of each other member, and what is on its way of a snapshot at either end."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from p2psched.core.raft.log import size_of
from p2psched.model.ids import PeerId
from p2psched.model.limits import KIB, MIB
from p2psched.model.raft import Entry, Room, Snapshot

DIGEST_BYTES: Final = 16
# To one follower. A disk that syncs in a third of a second gets thousands of entries a second, and
# one that hangs costs the leader no more than this; it stays below the backlog of a link.
IN_FLIGHT_APPENDS_MAX: Final = 4_096
IN_FLIGHT_BYTES_MAX: Final = 2 * MIB
ACK_WEIGHT: Final = 0.1  # of the newest in the moving average


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

    __slots__ = ("acked", "moved_ms", "newer", "next", "snapshot", "wanted")

    def __init__(self, snapshot: Snapshot, now_ms: int) -> None:
        self.snapshot = snapshot
        self.newer = snapshot  # of this leader's: the newest one, or one that it made since
        self.acked = 0
        self.wanted = 0  # where the follower said last that it wants to go on
        self.next = 0  # bytes before it were sent
        self.moved_ms = now_ms  # when something was acknowledged, or all of it sent again


class Incoming:
    """A snapshot that comes in: how far, and the digest of that much."""

    __slots__ = ("digest", "offset", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.offset = 0
        self.digest = hashlib.blake2b(digest_size=DIGEST_BYTES)


class Transfer:
    """Leadership on its way to another voter."""

    __slots__ = ("due_ms", "for_room", "to")

    def __init__(self, to: PeerId, due_ms: int, for_room: bool) -> None:
        self.to = to
        self.due_ms = due_ms  # then we lead on
        self.for_room = for_room  # our disk is full: if it still is then, we don't


class Sparing:
    """What a leader remembers of whom it lets wait: see `sparing`."""

    __slots__ = ("chosen", "commit_ms", "due_ms", "first", "hedged", "many", "pending")

    def __init__(self) -> None:
        # Entries of ours that are not committed: index, whom its commit concerns (None: everybody),
        # if it is one of many, and when it was appended.
        self.pending: deque[tuple[int, frozenset[PeerId] | None, bool, int]] = deque()
        self.many = False  # the newest was
        self.chosen: list[PeerId] = []  # make a majority with us
        self.commit_ms = 0.0  # what commits take: moving average
        self.due_ms: int | None = None  # when those who wait get what they lack
        self.first = 0  # what they lack from here on is young
        self.hedged = 0  # up to here everybody has got all


class Care:
    """What a member that leads remembers of looking after the group."""

    __slots__ = ("away_ms", "departing", "due_ms", "halfway", "index", "on", "since_ms")

    def __init__(self) -> None:
        self.departing = 0  # index of the change that removes somebody, until it ends
        self.halfway = 0  # index of our change to an even number of voters, until it is committed
        self.away_ms = 0  # as we were asked last
        self.on = False  # all peers know what it may do
        self.due_ms = 0
        self.index = -1  # of the membership
        self.since_ms = 0  # when we have seen it first


class Regain:
    """How far a log that was damaged is filled again. All but `nonce` are of one term."""

    __slots__ = ("agreed", "ends", "nonce", "target", "term")

    def __init__(self, nonce: int) -> None:
        self.nonce = nonce  # of this process: an answer to it is newer than the damage
        self.term = 0
        self.target: int | None = None  # the leader's last entry, as it told us
        self.agreed = 0  # up to here our log is the leader's
        self.ends = False  # it is whole: that is on its way to the disk


class OwnVote(msgspec.Struct, frozen=True):
    """A candidate's vote for itself counts when it is on disk, like any other."""

    term: int


class RegainEnds(msgspec.Struct, frozen=True):
    """A log is whole again, and counts as such when the disk says so."""


class Progress:
    """What the leader knows of one other member. `probing`: one append at a time until it fits.
    What is on its way to it is bounded in appends and in bytes; beyond that it waits."""

    __slots__ = (
        "_flight",
        "able_ms",
        "ack_ms",
        "bytes_in_flight",
        "contact_ms",
        "match",
        "next",
        "probe_sent",
        "probing",
        "room",
        "round",
        "round_trip_ms",
        "sending",
        "sync_ms",
        "told",
    )

    def __init__(self, next_index: int, now_ms: int) -> None:
        self.match = 0
        self.next = next_index
        self.probing = True
        self.probe_sent = False
        # Of each append: its last index, its bytes, and when it was sent.
        self._flight: deque[tuple[int, int, int]] = deque()
        self.bytes_in_flight = 0
        self.contact_ms = now_ms
        self.able_ms = now_ms  # heard, and its disk takes what is written
        self.room: Room | None = None  # of its disk; None: it has not said
        self.round = 0  # newest heartbeat round that it answered
        self.round_trip_ms = 0.0  # moving average
        self.ack_ms = 0.0  # likewise, of what it takes to have entries on its disk and say so
        self.told = 0  # the commit index that it was told last
        self.sending: Sending | None = None  # what it lacks is not in our log any more
        self.sync_ms = 0  # what a sync of its disk takes, as it says

    @property
    def must_wait(self) -> bool:
        """True if entries may only follow an answer of it."""
        if self.probing:
            return self.probe_sent
        flight = self._flight
        return len(flight) >= IN_FLIGHT_APPENDS_MAX or self.bytes_in_flight >= IN_FLIGHT_BYTES_MAX

    def age_ms(self, now_ms: int) -> float:
        """How long it takes to acknowledge entries, or has been taking now."""
        hangs_ms = now_ms - self._flight[0][2] if self._flight else 0
        return max(self.ack_ms, hangs_ms)

    def took_off(self, entries: Sequence[Entry], now_ms: int) -> None:
        """These are on their way; those behind them are next, but for a probe."""
        if self.probing:
            self.probe_sent = True
        elif entries:
            size = sum(map(size_of, entries))
            self.next = entries[-1].index + 1
            self._flight.append((entries[-1].index, size, now_ms))
            self.bytes_in_flight += size

    def landed(self, match: int, now_ms: int) -> None:
        """It agrees up to `match`, and has that much on disk."""
        self.match = max(self.match, match)
        self.next = max(self.next, self.match + 1)
        self.probing = self.probe_sent = False
        while self._flight and self._flight[0][0] <= self.match:
            _, size, sent_ms = self._flight.popleft()
            self.bytes_in_flight -= size
            self.ack_ms += ACK_WEIGHT * (now_ms - sent_ms - self.ack_ms)
        assert self.bytes_in_flight >= 0

    def probe(self, next_index: int) -> None:
        """Whatever is on its way is given up: look whether the log fits before `next_index`."""
        self.next = next_index
        self.probing, self.probe_sent = True, False
        self._flight.clear()
        self.bytes_in_flight = 0

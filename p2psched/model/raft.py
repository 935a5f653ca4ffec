"""What Raft peers store and say to each other (Ongaro 2014; pre-vote: section 9.6)."""

from __future__ import annotations

import enum

import msgspec

from p2psched.model.ids import PeerId


class EntryKind(enum.IntEnum):
    NOOP = 0  # the first entry of a leader's term
    COMMANDS = 1
    MEMBERSHIP = 2
    PART = 3  # of commands that don't fit an entry of this engine: see `core.parts`


class Room(enum.IntEnum):
    """What a peer's disk still takes."""

    ENOUGH = 0
    LOW = 1  # the ledger, from what was kept for it; no new work, no data
    NONE = 2  # nothing: writes wait until there is space


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One slot of the log. `stamp_ms` is ledger time; `wall_ms` is for people only."""

    index: int
    term: int
    kind: EntryKind
    stamp_ms: int
    wall_ms: int
    payload: bytes


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """What must be on disk before a vote or an answer in `term` is spoken."""

    term: int = 0
    vote: PeerId | None = None


class Member(msgspec.Struct, frozen=True, array_like=True):
    peer: PeerId
    name: str
    address: str
    votes: bool = True  # may be made a voter; one that votes already goes on voting
    zone: str = ""  # the failure domain that it is in, as whoever started it says


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """Who votes and who only follows. Sorted by peer id; one change differs by one voter."""

    voters: tuple[Member, ...] = ()
    learners: tuple[Member, ...] = ()
    removed: tuple[PeerId, ...] = ()  # lately, oldest first: identities that are members no more
    wanted: int = 0  # voters; 0: as many as is usual
    # What people have said of members: it shall vote, or shall not. By peer.
    wishes: tuple[tuple[PeerId, bool], ...] = ()

    def member(self, peer: PeerId) -> Member | None:
        return next((m for m in (*self.voters, *self.learners) if m.peer == peer), None)

    def is_voter(self, peer: PeerId) -> bool:
        return any(member.peer == peer for member in self.voters)

    def wish(self, peer: PeerId) -> bool | None:
        return dict(self.wishes).get(peer)


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=20):
    term: int  # the term that the candidate wants to lead; not yet its own while `pre`
    last_index: int
    last_term: int
    pre: bool
    # The leader told the candidate to take over: its followers need not wait until it is silent.
    transfer: bool = False


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=21):
    term: int  # granted: the term asked for; refused: the voter's own
    granted: bool
    pre: bool


class Append(msgspec.Struct, frozen=True, array_like=True, tag=22):
    term: int
    prev_index: int
    prev_term: int
    commit: int
    round: int  # counts heartbeats, from 1; the answer returns it. 0: only answered if refused
    entries: tuple[Entry, ...] = ()
    slack_ms: int = 0  # the round trip to the follower and how late the leader's loop is, about
    heartbeat_ms: int = 0  # how often the leader speaks; 0: of a version that doesn't say


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=23):
    term: int
    round: int
    ok: bool
    match: int = 0  # ok: everything up to here agrees with the leader and is on disk
    conflict_index: int = 0  # refused: where the leader should look next
    conflict_term: int = 0  # refused: 0 if the log is too short
    room: int = Room.ENOUGH  # of the follower's disk
    sync_ms: int = 0  # what a sync of the follower's disk takes, about


class ReadAsk(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """A follower asks the leader up to where it must have applied for a linearizable read."""

    term: int
    read: int
    # The asker lost what it had written, and asks how far the log of its leader goes by now.
    lost: bool = False


class ReadReply(msgspec.Struct, frozen=True, array_like=True, tag=25):
    term: int
    read: int
    index: int  # -1: not the leader, ask again later. `lost`: the leader's last
    lost: bool = False


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What stands for the entries 1 to `index`: the state of whoever applied them all, which are
    `size` bytes elsewhere, and what the log itself still needs to know of them."""

    index: int  # of the last entry that it covers
    term: int  # of that entry
    stamp_ms: int  # of that entry
    membership: Membership  # as of that entry
    size: int = 0
    digest: bytes = b""  # of the state's bytes: BLAKE2b, 16 bytes


class SnapshotPiece(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """A part of a snapshot, for a follower that needs entries which its leader has dropped."""

    term: int
    round: int  # as in `Append`
    snapshot: Snapshot
    offset: int
    data: bytes


class SnapshotReply(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """`done`: everything up to `index` agrees with the leader and is on disk, as in
    `AppendReply.match`. Otherwise `offset` is where the follower wants the next piece from."""

    term: int
    round: int
    index: int
    offset: int
    done: bool


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """A leader tells a voter that has all of its log to take over at once (section 3.10)."""

    term: int


RaftMessage = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | ReadAsk
    | ReadReply
    | SnapshotPiece
    | SnapshotReply
    | TimeoutNow
)

"""What goes into the Raft core and what comes out of it."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Entry,
    EntryKind,
    HardState,
    Member,
    Membership,
    RaftMessage,
    Room,
    Snapshot,
)

# --- events ---------------------------------------------------------------------------------------


class Tick(msgspec.Struct, frozen=True):
    """Time went on. Due at `Raft.due_ms` at the latest; more often does no harm."""

    now_ms: int
    wall_ms: int


class Receive(msgspec.Struct, frozen=True):
    """A message from another peer, whose identity the link has proven."""

    now_ms: int
    sender: PeerId
    message: RaftMessage


class Propose(msgspec.Struct, frozen=True):
    """Append to the log; only on the leader, otherwise nothing happens. `concerned` hear of its
    commit at once (None: everybody), the others a little later; if it is one of `many`, the others
    may get it later, too."""

    now_ms: int
    wall_ms: int
    payload: bytes
    kind: EntryKind = EntryKind.COMMANDS
    concerned: frozenset[PeerId] | None = None
    many: bool = False


class Synced(msgspec.Struct, frozen=True):
    """Everything up to this `Persist.token` is on disk."""

    now_ms: int
    token: int
    took_ms: float = 0.0  # that this sync took on the disk; 0: not measured


class Read(msgspec.Struct, frozen=True):
    """A linearizable read wants to know how far it must apply first (section 6.4)."""

    now_ms: int
    read: int  # chosen by the driver


class AddMember(msgspec.Struct, frozen=True):
    """Make a peer a learner, or note its new address. Ignored unless leader; safe to repeat."""

    now_ms: int
    wall_ms: int
    member: Member


class RemoveMember(msgspec.Struct, frozen=True):
    """Make a peer no member any more, for good. Ignored unless leader; safe to repeat."""

    now_ms: int
    wall_ms: int
    peer: PeerId


class Wish(msgspec.Struct, frozen=True):
    """Somebody says that a member shall vote, or shall not. Ignored unless leader; safe to
    repeat."""

    now_ms: int
    wall_ms: int
    peer: PeerId
    votes: bool


class WantVoters(msgspec.Struct, frozen=True):
    """How many there shall be; 0: as is usual. Ignored unless leader; safe to repeat."""

    now_ms: int
    wall_ms: int
    count: int


class Regulate(msgspec.Struct, frozen=True):
    """Look after the group (`group`): on the leader, from when all peers know what that may do.
    Often. `away_ms`: silence after which a voter is replaced."""

    now_ms: int
    wall_ms: int
    away_ms: int


class SnapshotSaved(msgspec.Struct, frozen=True):
    """A snapshot of what this peer has applied is on disk: what it covers may leave the log."""

    now_ms: int
    snapshot: Snapshot


class RoomChanged(msgspec.Struct, frozen=True):
    """This peer's disk is full, or has room again."""

    now_ms: int
    room: Room


class HandOver(msgspec.Struct, frozen=True):
    """Make another voter the leader; only on the leader, and only if one is fit for it. Nothing
    is proposed meanwhile, an election timeout at most."""

    now_ms: int
    avoid: frozenset[PeerId] = frozenset()  # these shall not lead either


class LoopLate(msgspec.Struct, frozen=True):
    """How late the loop of this member is, as measured over the last while."""

    now_ms: int
    late_ms: float


MemberEvent = AddMember | RemoveMember | Wish | WantVoters | Regulate
RaftEvent = (
    RoomChanged
    | Tick
    | Receive
    | Propose
    | Synced
    | Read
    | MemberEvent
    | SnapshotSaved
    | HandOver
    | LoopLate
)

# --- effects --------------------------------------------------------------------------------------


class StorePiece(msgspec.Struct, frozen=True):
    """Bytes of a snapshot that comes in. At offset 0 whatever came in before is thrown away."""

    snapshot: Snapshot
    offset: int
    data: bytes


class Persist(msgspec.Struct, frozen=True):
    """Write in this order, then sync, then say `Synced(token)`. Several may share one sync."""

    token: int
    hard_state: HardState | None
    truncate_from: int | None  # entries from this index on are void
    entries: tuple[Entry, ...]
    piece: StorePiece | None = None  # need not be synced
    # Put what came in piece by piece in the place of the log: first the snapshot must be durable,
    # then the log begins anew behind it. Comes after `piece`, and then there are no `entries`.
    install: Snapshot | None = None
    # The log is whole again, and synced up to where it had to be: take back the note on the disk
    # that it is not.
    regained: bool = False


class Send(msgspec.Struct, frozen=True):
    """May be lost, doubled or late: the core repeats what matters."""

    to: PeerId
    message: RaftMessage


class Commit(msgspec.Struct, frozen=True):
    """Entries up to `index` are committed: apply them."""

    index: int


class ReadReady(msgspec.Struct, frozen=True):
    """The answer to `Read`: apply up to `index`, then read. None: no quorum, ask again later."""

    read: int
    index: int | None


class LeaderChanged(msgspec.Struct, frozen=True):
    """A new leader or term. On a new leader itself this comes once it has committed in its term,
    after the `Commit` of everything older."""

    leader: PeerId | None
    term: int


class MembershipChanged(msgspec.Struct, frozen=True):
    """The newest membership in the log; it counts from when it is appended (section 4.1)."""

    membership: Membership


class SendPiece(msgspec.Struct, frozen=True):
    """Read a part of a snapshot and send it as `SnapshotPiece`; may be lost like `Send`, also
    because the snapshot is not there any more."""

    to: PeerId
    term: int
    round: int
    snapshot: Snapshot
    offset: int
    size: int


class Compact(msgspec.Struct, frozen=True):
    """This snapshot is durable: the disk may let go of what nobody needs any more."""

    snapshot: Snapshot


class Installed(msgspec.Struct, frozen=True):
    """A snapshot of the leader is durable here and stands for the log up to its index: restore
    the state from it before anything else is applied."""

    snapshot: Snapshot


class Regained(msgspec.Struct, frozen=True):
    """This member votes again: its log has all that it may ever have acknowledged."""


RaftEffect = (
    Persist
    | Regained
    | Send
    | SendPiece
    | Commit
    | ReadReady
    | LeaderChanged
    | MembershipChanged
    | Compact
    | Installed
)

"""What a simulated peer needs of the cluster around it, and what its disk starts with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from p2psched.core.feed import SaidMessage
from p2psched.core.raft.engine import found_cluster
from p2psched.core.raft.progress import Compaction
from p2psched.core.raft.state import encode_membership
from p2psched.core.scheduler import Store
from p2psched.core.state import LedgerState
from p2psched.model.commands import Outcome
from p2psched.model.execution import Batch
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Entry,
    EntryKind,
    HardState,
    Member,
    Membership,
    RaftMessage,
    Snapshot,
)
from p2psched.testing.cutoff_referee import CutOffReferee
from p2psched.testing.disk_referee import DiskReferee
from p2psched.testing.faults import Faults
from p2psched.testing.sim_items import Item
from p2psched.testing.stall_referee import StallReferee

if TYPE_CHECKING:
    from p2psched.testing.referees import Referees
    from p2psched.testing.sim_checkpoints import Disks
    from p2psched.testing.sim_peer import SimPeer


class PowerLostError(Exception):
    """The peer crashes here."""


class Founding(msgspec.Struct, frozen=True):
    """What an empty disk of this peer starts with: nothing for all but the founders."""

    hard_state: HardState
    entries: tuple[Entry, ...]


# Newer snapshots that a peer could not read as it started; None: it took its leader's.
Damage = tuple[str, ...] | None


class Snapshots(msgspec.Struct, frozen=True):
    """How often peers make snapshots, and what they keep and send."""

    every: int = 0  # entries; 0: never
    compaction: Compaction = Compaction()


class Process(Protocol):
    """What runs tasks and says something: a peer, or a follower."""

    number: int
    process: int
    alive: bool
    leaving: bool
    last_batch: int

    @property
    def id(self) -> PeerId: ...
    @property
    def state(self) -> LedgerState:
        """As far as it knows the ledger."""
        ...


class World(Protocol):
    """The cluster, as one peer sees it."""

    now_us: int
    referees: Referees
    rng: random.Random
    faults: Faults
    size: int  # peers, up or not
    away_ms: int | None  # silence after which leaders replace a voter; None: they replace nobody
    cutoff: CutOffReferee
    max_disconnect_ms: int  # that peers go on without a majority
    snapshots: Snapshots
    happened: Counter[str]
    disks: DiskReferee
    stalls: StallReferee
    saved: Disks  # checkpoints

    def after(self, delay_ms: float, act: Callable[[], None]) -> None:
        """In virtual time, whatever becomes of peers."""
        ...

    def later(self, delay_us: int, peer: SimPeer, item: Item) -> None:
        """Bring `item` to this process, unless it is gone by then."""
        ...

    def send(self, sender: Process, to: PeerId, data: bytes) -> None: ...

    def on_said(self, peer: SimPeer, to: PeerId, message: RaftMessage) -> None: ...

    def say(self, sender: Process, to: PeerId, message: SaidMessage) -> None:
        """As `send`, of what is no consensus."""
        ...

    def on_synced(self, delay_us: int) -> None:
        """A sync that takes so long begins."""
        ...

    def crashes_here(self, share: float) -> bool: ...

    def on_stored(self, peer: SimPeer, stored: Store) -> None: ...

    def on_saving(self, peer: SimPeer, snapshot: Snapshot) -> None:
        """A peer begins to put a snapshot of its own on its disk."""
        ...

    def on_restored(self, peer: SimPeer, snapshot: Snapshot, damaged: Damage) -> None:
        """A peer's machine comes from a snapshot, at its start or of its leader's."""
        ...

    def on_blobs_gone(self, peer: SimPeer, digests: list[bytes]) -> None:
        """The power has gone on a peer, and with it these large results."""
        ...

    def on_answered(self, peer: SimPeer, tag: int, outcome: Outcome) -> None: ...

    def on_read(self, tag: int, index: int | None) -> None:
        """Everything up to `index` is applied on the peer that was asked; None: no quorum."""
        ...

    def on_started(self, peer: Process, batch: Batch, index: int) -> None: ...

    def any_other(self, peer: SimPeer) -> PeerId: ...

    def reaches(self, one: PeerId, other: PeerId) -> bool:
        """A call from one to the other would be answered now."""
        ...

    def carry_blob(self, giver: PeerId, taker: PeerId, digest: bytes) -> bool:
        """Copy a large result from one disk to another, if both are there and reach each other."""
        ...


def founding_of(members: list[Member], number: int, *, formed: bool) -> Founding | None:
    """What the disk of a peer starts with."""
    if formed:
        payload = encode_membership(Membership(tuple(sorted(members, key=lambda m: m.peer))))
        return Founding(HardState(1, None), (Entry(1, 1, EntryKind.MEMBERSHIP, 0, 0, payload),))
    if number:
        return None
    hard_state, entry = found_cluster(members[0], 0, 0)
    return Founding(hard_state, (entry,))

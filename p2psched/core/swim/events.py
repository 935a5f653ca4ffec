"""What goes into the gossip core and what comes out of it."""

from __future__ import annotations

import msgspec

from p2psched.model.gossip import Datagram
from p2psched.model.gossip_messages import GossipAnswer, GossipCall
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

# --- events ---------------------------------------------------------------------------------------


class Ticked(msgspec.Struct, frozen=True):
    """Time went on. Due at `Swim.due_ms`; more often does no harm."""

    now_ms: int


class Received(msgspec.Struct, frozen=True):
    """`source`: where an answer goes; empty: it came over a link."""

    now_ms: int
    source: str
    datagram: Datagram


class Heard(msgspec.Struct, frozen=True):
    """The ledger, or the address book, has a peer there. `life`: its incarnation; 0: not known.
    `fresh`: the peer itself says that this is its address now."""

    now_ms: int
    peer: PeerId
    life: int
    address: str
    fresh: bool = False


class Gone(msgspec.Struct, frozen=True):
    """The ledger doesn't hold it for alive any more; of use only if it has never said anything."""

    now_ms: int
    peer: PeerId


class Removed(msgspec.Struct, frozen=True):
    """It is no member of the cluster any more, for good."""

    now_ms: int
    peer: PeerId


class Renewed(msgspec.Struct, frozen=True):
    """We go on under this incarnation of the ledger."""

    now_ms: int
    life: int


class Published(msgspec.Struct, frozen=True):
    """News of ours. They replace those before of the same topic."""

    now_ms: int
    data: bytes
    topic: int = 0


class Called(msgspec.Struct, frozen=True):
    """Another peer compares; a `Reply` follows."""

    now_ms: int
    body: GossipCall


class Answered(msgspec.Struct, frozen=True):
    """The end of a `CallPeer`; without a body it failed."""

    now_ms: int
    peer: PeerId
    body: GossipAnswer | None


class Leaving(msgspec.Struct, frozen=True):
    """We stop cleanly: say so, and nothing else after it."""

    now_ms: int


SwimEvent = (
    Ticked | Received | Heard | Gone | Removed | Renewed | Published | Called | Answered | Leaving
)

# --- effects --------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """`address`: where to; empty: over the link to that peer."""

    peer: PeerId
    address: str
    datagram: Datagram


class CallPeer(msgspec.Struct, frozen=True):
    """Over the link; `Answered` follows, whatever happens."""

    peer: PeerId
    body: GossipCall


class Reply(msgspec.Struct, frozen=True):
    body: GossipAnswer


class Changed(msgspec.Struct, frozen=True):
    """What we think of a peer. None: it is forgotten."""

    peer: PeerId
    life: int
    liveness: Liveness | None
    address: str


class NewsOf(msgspec.Struct, frozen=True):
    """Another peer says something. Of one life and topic the numbers rise."""

    peer: PeerId
    life: int
    number: int
    topic: int
    data: bytes


SwimEffect = Send | CallPeer | Reply | Changed | NewsOf

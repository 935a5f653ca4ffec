"""What reaches a peer of a simulation: messages, timers, callers; and the clock that it reads.

Messages pass the real codec on their way, so that what can't be written down can't be sent.
"""

from __future__ import annotations

import random

import msgspec

from p2psched.core.raft.effects import MemberEvent, RemoveMember, WantVoters, Wish
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Command
from p2psched.model.feed_messages import FeedMessage
from p2psched.model.ids import PeerId
from p2psched.model.messages import Forward
from p2psched.model.raft import Member, RaftMessage, Snapshot
from p2psched.model.steal_messages import StealMessage
from p2psched.testing.sim_executor import Work


class Join(msgspec.Struct, frozen=True, array_like=True, tag=99):
    """A peer asks whoever it reaches to make it a member."""

    member: Member


class Arrived(msgspec.Struct, frozen=True):
    sender: PeerId
    data: bytes
    to: PeerId


class TickDue(msgspec.Struct, frozen=True):
    at_us: int


class ClockDue(msgspec.Struct, frozen=True):
    pass


class TurnEnds(msgspec.Struct, frozen=True):
    pass


class SyncEnds(msgspec.Struct, frozen=True):
    pass


class SaveEnds(msgspec.Struct, frozen=True):
    """A snapshot that was begun gets to the disk."""

    snapshot: Snapshot
    state: bytes


class CopiesEnd(msgspec.Struct, frozen=True):
    """The copies of large results that a `CopyBlobs` wanted are made, as far as they could be."""

    number: int
    blobs: tuple[ResultBlob, ...]
    copies: int


class AskedHere(msgspec.Struct, frozen=True):
    tag: int
    command: Command


class GivenUp(msgspec.Struct, frozen=True):
    tag: int


class ReadHere(msgspec.Struct, frozen=True):
    tag: int


class LeaveHere(msgspec.Struct, frozen=True):
    """The process is about to be stopped; it is answered when nobody has to miss it first."""

    tag: int


class HandOverHere(msgspec.Struct, frozen=True):
    """Let another lead, if this peer does, and none of these."""

    avoid: frozenset[PeerId] = frozenset()


class RemoveHere(msgspec.Struct, frozen=True):
    """Make a peer no member any more, if this one leads."""

    peer: PeerId


class WishHere(msgspec.Struct, frozen=True):
    """Say that a member shall vote, or shall not, if this peer leads."""

    peer: PeerId
    votes: bool


class WantHere(msgspec.Struct, frozen=True):
    """Say how many voters there shall be, if this peer leads."""

    count: int


# From outside, at this peer.
OfMembers = RemoveHere | WishHere | WantHere
Caller = AskedHere | GivenUp | ReadHere | LeaveHere | HandOverHere | OfMembers


def event_of(item: OfMembers, now_ms: int, wall_ms: int) -> MemberEvent:
    match item:
        case RemoveHere(peer=peer):
            return RemoveMember(now_ms, wall_ms, peer)
        case WishHere(peer=peer, votes=votes):
            return Wish(now_ms, wall_ms, peer, votes)
        case WantHere(count=count):
            return WantVoters(now_ms, wall_ms, count)


Item = (
    Arrived | TickDue | ClockDue | TurnEnds | SyncEnds | SaveEnds | Caller | Work
    | CopiesEnd
)  # fmt: skip

WireMessage = RaftMessage | Forward | FeedMessage | StealMessage | Join
encode_wire = msgspec.msgpack.Encoder().encode
decode_wire = msgspec.msgpack.Decoder(WireMessage).decode


class SimClock:
    """A boot clock of its own: an origin that nobody knows, and a rate that isn't quite right."""

    def __init__(self, rng: random.Random, drift_ppm: int) -> None:
        self._origin_us = rng.randrange(0, 10**12)
        self._ppm = rng.randint(-drift_ppm, drift_ppm)
        self._wall_ms = rng.randrange(10**12, 2 * 10**12)

    def now_ms(self, world_us: int) -> int:
        return (self._origin_us + world_us + world_us * self._ppm // 1_000_000) // 1000

    def wall_ms(self, world_us: int) -> int:
        return self._wall_ms + world_us // 1000

    def step_wall(self, by_ms: int) -> None:
        """Somebody sets the clock that people read."""
        self._wall_ms += by_ms

"""The embedded ledger engine without I/O: Raft, plus the way of proposals into entries and of
entries out to the scheduler. The asyncio loop and the simulator drive this same object.

Proposals that pile up in a turn become one entry; while others wait for their commit, proposals
wait too and leave together (`together`): cost is paid per round, not per task.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core.raft.concern import Concern
from p2psched.core.raft.core import Raft
from p2psched.core.raft.effects import (
    Commit,
    Compact,
    HandOver,
    Installed,
    LeaderChanged,
    LoopLate,
    MemberEvent,
    MembershipChanged,
    Persist,
    Propose,
    RaftEffect,
    Read,
    ReadReady,
    Receive,
    Regained,
    RoomChanged,
    Send,
    SendPiece,
    SnapshotSaved,
    Synced,
    Tick,
)
from p2psched.core.raft.fitting import as_fits, take_proposals, weight
from p2psched.core.raft.log import size_of
from p2psched.core.raft.made import Made
from p2psched.core.raft.progress import Compaction
from p2psched.core.raft.timing import Timing
from p2psched.core.raft.together import MANY_MIN, MANY_MS, Together
from p2psched.model.commands import Envelope
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.limits import PENDING_PROPOSALS_MAX, PROPOSED_BYTES_MAX
from p2psched.model.messages import Forward
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Snapshot

DELIVERY_MAX: Final = 64  # entries handed to the scheduler in one round
READ_PATIENCE_MS: Final = 1000  # a read that nobody confirms by then is answered with None

Decorate = Callable[[tuple[Envelope, ...]], tuple[Envelope, ...]]

_encode = msgspec.msgpack.Encoder().encode


# --- events besides those of Raft -----------------------------------------------------------------


class Forwarded(msgspec.Struct, frozen=True):
    """Another peer passed proposals on to us because it takes us for the leader."""

    now_ms: int
    forward: Forward


class Round(msgspec.Struct, frozen=True):
    """End of a turn: make entries of what piled up, deliver what is committed."""

    now_ms: int
    wall_ms: int


EngineEvent = (
    Tick
    | Receive
    | Synced
    | MemberEvent
    | SnapshotSaved
    | RoomChanged
    | HandOver
    | LoopLate
    | Forwarded
    | Round
)


# --- effects besides `Persist` and `Send` ---------------------------------------------------------


class SendForward(msgspec.Struct, frozen=True):
    to: PeerId
    forward: Forward


class Deliver(msgspec.Struct, frozen=True):
    """Committed entries, in order, without gaps."""

    batches: tuple[Committed, ...]


class CoordinatorIs(msgspec.Struct, frozen=True):
    """See `ports.ledger.LedgerListener.on_coordinator`."""

    coordinator: PeerId | None
    is_self: bool


class ReadAnswered(msgspec.Struct, frozen=True):
    tag: int
    index: int | None


EngineEffect = (
    Persist
    | Send
    | SendPiece
    | SendForward
    | Deliver
    | Installed
    | Compact
    | Regained
    | CoordinatorIs
    | ReadAnswered
    | MembershipChanged
)


class RaftEngine:
    """One member of the group."""

    def __init__(
        self,
        *,
        me: PeerId,
        rng: random.Random,
        timing: Timing,
        hard_state: HardState,
        entries: Sequence[Entry],
        now_ms: int,
        decorate: Decorate,
        snapshot: Snapshot | None = None,
        compaction: Compaction | None = None,
        lost: bool = False,
        many_min: int = MANY_MIN,
    ) -> None:
        """With a `snapshot` the listener must have restored its state before the first round."""
        self.raft = Raft(
            me=me,
            rng=rng,
            timing=timing,
            hard_state=hard_state,
            entries=entries,
            now_ms=now_ms,
            snapshot=snapshot,
            compaction=compaction,
            lost=lost,
        )
        self._many_min, self._many_until_ms = many_min, 0
        self._me = me
        self._decorate = decorate
        self._proposals: deque[Envelope] = deque()
        self._weights: deque[int] = deque()  # of each of these, ...
        self._proposed_bytes = 0  # ... and of all
        self._made = Made()
        self._under_way: set[tuple[PeerId, int]] = set()  # queued, or on the leader not delivered
        self._delivered = snapshot.index if snapshot is not None else 0
        self.bytes_since_snapshot = 0  # of delivered entries
        self._coordinator_after: tuple[int, CoordinatorIs] | None = None
        self._read_tags: list[int] = []  # asked in this turn
        self._reads: dict[int, tuple[int, list[int]]] = {}  # read -> (asked at, tags)
        self._next_read = rng.getrandbits(48)
        self.concern = Concern()
        self._together = Together()
        self._out: list[EngineEffect] = []

    # --- what callers want; acted upon at the end of the turn ---

    def append(self, envelopes: Sequence[Envelope]) -> None:
        """Take proposals along. Beyond the bound the newest are dropped: proposers repeat."""
        for envelope in envelopes:
            key = (envelope.proposer, envelope.request)
            is_full = len(self._proposals) >= PENDING_PROPOSALS_MAX
            if is_full or self._proposed_bytes >= PROPOSED_BYTES_MAX:
                return
            if key not in self._under_way:  # else it is a repeat of what waits or isn't committed
                self._under_way.add(key)
                self._proposals.append(envelope)
                weighs = weight(envelope.command)
                self._weights.append(weighs)
                self._proposed_bytes += weighs

    def read_index(self, tag: int) -> None:
        """`ReadAnswered` with this tag follows, within `READ_PATIENCE_MS` of ticks."""
        self._read_tags.append(tag)

    # --- events ---

    def step(self, event: EngineEvent) -> list[EngineEffect]:
        """Take one event; perform the effects in order."""
        match event:
            case Round(now_ms=now_ms, wall_ms=wall_ms):
                self._on_round(now_ms, wall_ms)
            case Forwarded(forward=forward):
                if self.raft.is_leader:
                    gone = self.raft.membership.removed
                    self.append([e for e in forward.envelopes if e.proposer not in gone])
            case Tick(now_ms=now_ms):
                self._take(self.raft.step(event))
                self._expire_reads(now_ms)
                self._together.look(now_ms)
            case SnapshotSaved(snapshot=snapshot):
                before = self.raft.snapshot
                self._take(self.raft.step(event))
                if self.raft.snapshot is not before:
                    self.bytes_since_snapshot = self._bytes_behind(snapshot.index)
            case _:
                self._take(self.raft.step(event))
        out, self._out = self._out, []
        return out

    def _take(self, effects: list[RaftEffect]) -> None:
        for effect in effects:
            match effect:
                case (
                    Persist() | Send() | SendPiece() | MembershipChanged() | Compact() | Regained()
                ):
                    self._out.append(effect)
                case Installed(snapshot=snapshot):
                    self._delivered = snapshot.index
                    self.bytes_since_snapshot = 0
                    self._out.append(effect)
                case LeaderChanged(leader=leader):
                    is_self = leader == self._me
                    if not is_self:
                        self._forget_under_way()
                    coordinator = CoordinatorIs(leader, is_self)
                    if is_self:  # speaks only once all that came before is applied
                        self._coordinator_after = (self.raft.commit, coordinator)
                    else:
                        self._coordinator_after = None
                        self._out.append(coordinator)
                case ReadReady(read=read, index=index):
                    self._answer_read(read, index)
                case Commit():
                    pass  # delivered at the end of the turn

    def _on_round(self, now_ms: int, wall_ms: int) -> None:
        self._deliver()
        if self._read_tags:
            read, self._next_read = self._next_read, self._next_read + 1
            self._reads[read] = (now_ms, self._read_tags)
            self._read_tags = []
            self._take(self.raft.step(Read(now_ms, read)))
        if self.raft.is_leader:
            self._together.look(now_ms)
            self._make_entries(now_ms, wall_ms)
        elif self._proposals:
            self._forward()
        self._together.note(now_ms, waits=bool(self._proposals))

    def _bytes_behind(self, index: int) -> int:
        entries = self.raft.entries(index + 1, self._delivered + 1)
        return sum(map(size_of, entries))

    @property
    def _may_deliver(self) -> bool:
        """False also while a snapshot that we took waits for the disk."""
        return self._delivered < self.raft.state.commit and self.raft.base_index <= self._delivered

    def _deliver(self) -> None:
        if self._may_deliver:
            stop = min(self.raft.commit, self._delivered + DELIVERY_MAX)
            entries = self.raft.entries(self._delivered + 1, stop + 1)
            self._delivered = stop
            self.bytes_since_snapshot += sum(map(size_of, entries))
            batches = tuple(map(self._made.open, entries))
            if self._under_way:
                for batch in batches:
                    for envelope in batch.envelopes:
                        self._under_way.discard((envelope.proposer, envelope.request))
            self._out.append(Deliver(batches))
        if self._coordinator_after is not None and self._delivered >= self._coordinator_after[0]:
            self._out.append(self._coordinator_after[1])
            self._coordinator_after = None

    def _make_entries(self, now_ms: int, wall_ms: int) -> None:
        while self._proposals and self._may_append():
            proposals, encoded = self._take_proposals()
            decorated = self._decorate(proposals)
            encoded += as_fits(encoded, decorated[len(proposals) :])
            envelopes = decorated[: len(encoded)]
            concerned = self.concern.of(envelopes)
            payload = _encode([msgspec.Raw(data) for data in encoded])
            if len(encoded) >= self._many_min:
                self._many_until_ms = now_ms + MANY_MS
            many = now_ms < self._many_until_ms
            propose = Propose(now_ms, wall_ms, payload, concerned=concerned, many=many)
            self._take(self.raft.step(propose))
            self._made.note(self.raft.last_entry, envelopes)

    def _take_proposals(self) -> tuple[tuple[Envelope, ...], list[bytes]]:
        proposals, encoded = take_proposals(self._proposals)
        for _ in proposals:
            self._proposed_bytes -= self._weights.popleft()
        assert self._proposed_bytes >= 0, "what is taken was counted"
        return proposals, encoded

    def _may_append(self) -> bool:
        in_flight = self.raft.last_index - self.raft.commit
        may_leave = self._together.may_leave(len(self._proposals), in_flight)
        return may_leave and not self.raft.is_handing_over

    def _forward(self) -> None:
        leader = self.raft.leader
        while self._proposals:
            proposals, _ = self._take_proposals()
            for envelope in proposals:
                self._under_way.discard((envelope.proposer, envelope.request))
            if leader is not None:  # else they are dropped: proposers repeat on a new leader
                self._out.append(SendForward(leader, Forward(proposals)))

    def _forget_under_way(self) -> None:
        """What we appended as leader may be lost: a repeat must get through."""
        self._under_way = {(e.proposer, e.request) for e in self._proposals}
        self._made.clear()
        for read in list(self._reads):  # and whoever was asked may be gone
            self._answer_read(read, None)

    # --- reads ---

    def _answer_read(self, read: int, index: int | None) -> None:
        _, tags = self._reads.pop(read, (0, []))
        self._out += [ReadAnswered(tag, index) for tag in tags]

    def _expire_reads(self, now_ms: int) -> None:
        for read, (asked_ms, _) in list(self._reads.items()):
            if now_ms - asked_ms >= READ_PATIENCE_MS:
                self._answer_read(read, None)

    # --- what the driver may look at ---

    @property
    def has_round(self) -> bool:
        """False if a round would find nothing, neither now nor because time goes on."""
        return bool(self._proposals) or self.wants_round

    @property
    def wants_round(self) -> bool:
        """True if another round would do something now."""
        if self._read_tags or self._coordinator_after or self._may_deliver:
            return True
        return bool(self._proposals) and (not self.raft.is_leader or self._may_append())

    @property
    def due_ms(self) -> int:
        """When the next `Tick` is due."""
        due_ms = self.raft.due_ms
        if self._reads:
            due_ms = min(due_ms, READ_PATIENCE_MS + min(asked for asked, _ in self._reads.values()))
        leave_ms = self._together.due_ms
        return due_ms if leave_ms is None else min(due_ms, leave_ms)

    @property
    def delivered(self) -> int:
        return self._delivered

    def describe(self) -> Snapshot | None:
        """What a snapshot of the state as delivered would say of the log; None if the newest one
        says all of it, or another one is being put in its place."""
        newest = self.raft.snapshot
        known = max(newest.index if newest is not None else 0, self.raft.base_index)
        return self.raft.describe(self._delivered) if self._delivered > known else None

    def contacts(self) -> Mapping[PeerId, int]:
        """On the leader: peer -> when it was last heard."""
        return self.raft.contacts() if self.raft.is_ready_leader else {}


def found_cluster(member: Member, stamp_ms: int, wall_ms: int) -> tuple[HardState, Entry]:
    """What the disk of the first peer of a new cluster starts with."""
    payload = _encode(Membership((member,)))
    entry = Entry(1, 1, EntryKind.MEMBERSHIP, stamp_ms, wall_ms, payload)
    return HardState(1, None), entry

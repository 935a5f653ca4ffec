"""The embedded ledger: drives the Raft engine with clock, disk and links. Implements port `Engine`.

Everything runs in one event loop, without locks. A turn is: messages and timers step the engine,
then one `Round` makes entries of what piled up and delivers what is committed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from p2psched.core.raft.effects import (
    AddMember,
    Compact,
    HandOver,
    Installed,
    LoopLate,
    MemberEvent,
    MembershipChanged,
    Persist,
    Receive,
    Regained,
    Regulate,
    RoomChanged,
    Send,
    SendPiece,
    SnapshotSaved,
    Synced,
)
from p2psched.core.raft.effects import Tick as RaftTick
from p2psched.core.raft.engine import (
    CoordinatorIs,
    Deliver,
    EngineEffect,
    EngineEvent,
    Forwarded,
    RaftEngine,
    ReadAnswered,
    Round,
    SendForward,
)
from p2psched.core.raft.progress import Compaction
from p2psched.core.raft.timing import Timing
from p2psched.model.commands import Envelope
from p2psched.model.ids import PeerId
from p2psched.model.limits import SNAPSHOT_LOG_BYTES
from p2psched.model.messages import Forward, LedgerCompacted
from p2psched.model.raft import Member, Membership, RaftMessage, Room, Snapshot, SnapshotPiece
from p2psched.peer.compacting import compact
from p2psched.peer.log_writer import LogWriter, SpaceListener
from p2psched.peer.regularity import Regularity
from p2psched.peer.snapshots import MakeDurable, SnapshotMaker
from p2psched.ports.clock import Clock
from p2psched.ports.ledger import LedgerListener
from p2psched.store.log import LogStore, Recovered

log = logging.getLogger(__name__)

LATE_PERIOD_MS: Final = 1_000
# For a compaction that is asked for: until all of the log is applied. Without a quorum it is not.
# In one turn a follower syncs and says so, in the next one that is written to its socket; what it
# applies comes after both.
_TURNS_OF_SYNC: Final = 2

SendToPeer = Callable[[PeerId, RaftMessage | Forward], object]


class RaftLedger:
    """One member. Make it inside a running loop, `start` it, feed it `on_message`."""

    def __init__(
        self,
        *,
        me: PeerId,
        timing: Timing,
        store: LogStore,
        recovered: Recovered,
        clock: Clock,
        rng: random.Random,
        send: SendToPeer,
        listener: LedgerListener,
        on_membership: Callable[[Membership], None],
        on_disk_failed: Callable[[Exception], None],
        on_bug: Callable[[Exception], None],
        space: SpaceListener | None = None,
        make_durable: MakeDurable = lambda done: done(),
        snapshot_log_bytes: int = SNAPSHOT_LOG_BYTES,
        late_ms: Callable[[], float] = lambda: 0.0,
        away_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`make_durable`: of what `listener` keeps elsewhere, before the log lets go of it.
        `late_ms`: how late this loop is, over the last while; asked every `LATE_PERIOD_MS`.
        `away_ms`: see `Regulate`; None: not yet."""
        self._me = me
        self._clock = clock
        self._send = send
        self._listener = listener
        self._on_membership = on_membership
        self._on_bug = on_bug
        self._on_disk_failed = on_disk_failed
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._writer = LogWriter(
            store, on_synced=self._on_synced, on_failed=on_disk_failed, space=space
        )
        if space is not None:
            space.on_room = self.set_room
        self.engine = RaftEngine(
            me=me,
            rng=rng,
            timing=timing,
            hard_state=recovered.hard_state,
            entries=recovered.entries,
            now_ms=clock.now_ms(),
            decorate=listener.decorate,
            snapshot=recovered.snapshot,
            compaction=Compaction.beside(snapshot_log_bytes),
            lost=recovered.lost is not None,
        )
        self._state = recovered.state if recovered.snapshot is not None else None
        self._snapshots = SnapshotMaker(
            self.engine,
            store.snapshots,
            log_bytes=snapshot_log_bytes,
            capture_state=listener.capture_state,
            make_durable=make_durable,
            on_saved=self._on_saved,
            on_failed=on_disk_failed,
        )
        self._late_ms, self._away_ms, self._regularity = late_ms, away_ms, Regularity()
        self._late_asked_ms, self._heartbeat_told_ms = clock.now_ms(), 0
        self._reads: dict[int, Callable[[int | None], None]] = {}
        self._next_read = 1
        self._other_leads: asyncio.Future[None] | None = None
        self._round_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._leaderless_since: int | None = clock.now_ms()
        self.leaderless_ms_max = 0
        self._stopped = False

    async def open(self) -> None:
        """Nothing to wait for: what members say comes with the links of the peers."""

    def start(self) -> None:
        """The listener is restored from the snapshot on the disk, if there is one."""
        state, self._state = self._state, None
        if state is not None:
            self._listener.on_restored(state)
        self._on_membership(self.engine.raft.membership)
        self._arm()

    def stop(self) -> None:
        """No more effects; what is being written is finished first."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for done in list(self._reads.values()):
            done(None)
        self._reads.clear()
        self._snapshots.close()
        self._writer.close()

    # --- port -------------------------------------------------------------------------------------

    def append(self, envelopes: Sequence[Envelope]) -> None:
        self.engine.append(envelopes)
        self._schedule_round()

    def read_index(self, done: Callable[[int | None], None]) -> None:
        tag, self._next_read = self._next_read, self._next_read + 1
        self._reads[tag] = done
        self.engine.read_index(tag)
        self._schedule_round()

    async def hand_over(self) -> None:
        """Before a clean stop: wait until another voter leads. The caller owns the deadline."""
        if not self.engine.raft.is_leader:
            return
        self._step(HandOver(self._clock.now_ms()))
        if self.engine.raft.is_handing_over:
            self._other_leads = self._loop.create_future()
            await self._other_leads

    def yield_lead(self, avoid: frozenset[PeerId]) -> None:
        self._step(HandOver(self._clock.now_ms(), avoid))

    def coordinator(self) -> PeerId | None:
        return self.engine.raft.leader

    def contacts(self) -> Mapping[PeerId, int]:
        now_ms = self._clock.now_ms()
        return {peer: now_ms - heard for peer, heard in self.engine.contacts().items()}

    def word_age_ms(self) -> int | None:
        """Since we last heard a leader, or as one a majority; None: not since our start."""
        word_ms = self.engine.raft.word_ms
        return None if word_ms is None else max(0, self._clock.now_ms() - word_ms)

    def full(self) -> frozenset[PeerId]:
        return self.engine.raft.full_members()

    def removed(self) -> tuple[PeerId, ...]:
        return self.engine.raft.removed

    # --- what comes in ----------------------------------------------------------------------------

    def on_message(self, sender: PeerId, message: RaftMessage | Forward) -> None:
        now_ms, raft = self._clock.now_ms(), self.engine.raft
        if isinstance(message, Forward):
            if raft.is_leader or raft.membership.member(sender) is not None:
                self._step(Forwarded(now_ms, message))
            else:  # a follower's: whoever feeds it passes them on
                self.append(message.envelopes)
        else:
            self._step(Receive(now_ms, sender, message))

    def add_member(self, member: Member) -> None:
        self.change_members(lambda now_ms, wall_ms: AddMember(now_ms, wall_ms, member))

    def change_members(self, event: Callable[[int, int], MemberEvent]) -> None:
        self._step(event(self._clock.now_ms(), self._clock.wall_ms()))

    def set_room(self, room: Room) -> None:
        """What this peer's disk still takes."""
        self._step(RoomChanged(self._clock.now_ms(), room))

    async def make_snapshot(self) -> Snapshot | None:
        """Of all that is applied here. Raises NoSpace."""
        await self._snapshots.make()
        return self.engine.raft.snapshot

    async def compact(self) -> LedgerCompacted:
        """See `compacting`. Raises NoSpace."""
        return await compact(self, self._writer)

    def _on_synced(self, token: int, took_ms: float) -> None:
        self._step(Synced(self._clock.now_ms(), token, took_ms))

    def _on_saved(self, snapshot: Snapshot) -> None:
        log.info("snapshot-made", extra={"index": snapshot.index, "bytes": snapshot.size})
        self._step(SnapshotSaved(self._clock.now_ms(), snapshot))

    def _on_timer(self) -> None:
        self._timer = None
        now_ms = self._clock.now_ms()
        if now_ms - self._late_asked_ms >= LATE_PERIOD_MS:
            self._late_asked_ms = now_ms
            self._step(LoopLate(now_ms, self._late_ms()))
            self._tell_timing()
        if now_ms >= self.engine.due_ms or self.engine.raft.is_leader:
            self._step(RaftTick(now_ms, self._clock.wall_ms()))
        is_due = self._regularity.is_due(now_ms, self.engine.raft.membership)
        if is_due and (away_ms := self._away_ms()) is not None:
            self.change_members(lambda now_ms, wall_ms: Regulate(now_ms, wall_ms, away_ms))
        self._arm()

    def _tell_timing(self) -> None:
        """Once for each other preset that we come to follow."""
        raft = self.engine.raft
        theirs, ours = raft.leader_heartbeat_ms, raft.timing.heartbeat_ms
        if theirs and theirs != self._heartbeat_told_ms:
            self._heartbeat_told_ms = theirs
            if theirs != ours:
                advice = "start all peers with the same --timing"
                told = {"leader_heartbeat_ms": theirs, "heartbeat_ms": ours, "advice": advice}
                log.warning("timing-differs", extra=told)

    def _arm(self) -> None:
        """One timer, moved forward when it is due earlier; a late one looks again."""
        due_ms = self.engine.due_ms
        if self._timer is not None:
            if due_ms >= self._timer_ms:
                return
            self._timer.cancel()
        self._timer_ms = due_ms
        wait_ms = max(1, due_ms - self._clock.now_ms())
        self._timer = self._loop.call_later(wait_ms / 1000, self._on_timer)

    # --- what goes out ----------------------------------------------------------------------------

    def _schedule_round(self, *, turns: int = 0) -> None:
        """`turns` later than the next one."""
        if not self._round_scheduled and not self._stopped:
            self._round_scheduled = True
            self._begin_round(turns)

    def _begin_round(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._begin_round, turns - 1)
        else:
            self._loop.call_soon(self._on_round)

    def _on_round(self) -> None:
        self._round_scheduled = False
        self._step(Round(self._clock.now_ms(), self._clock.wall_ms()))

    def _step(self, event: EngineEvent) -> None:
        if self._stopped:
            return
        try:
            self._perform(self.engine.step(event))
            if self._timer is not None:  # else it is this one that came due
                self._arm()
        except OSError as error:  # of a snapshot that was to be read
            self._stopped = True
            self._on_disk_failed(error)
        except Exception as error:  # noqa: BLE001 (whatever it is, this peer must not go on)
            self._stopped = True
            self._on_bug(error)

    def _perform(self, effects: list[EngineEffect]) -> None:
        kinds = set(map(type, effects))
        # A follower with new entries: its sync comes first, then its word for it must leave.
        is_silent = Persist in kinds and not kinds & {Send, SendForward}
        for effect in effects:
            match effect:
                case Send(to=to, message=message) | SendForward(to=to, forward=message):
                    self._send(to, message)
                case Persist():
                    self._writer.write(effect, first=is_silent)
                case Deliver(batches=batches):
                    self._listener.on_committed(batches)
                    self._snapshots.look()
                case SendPiece() | Installed() | Compact():
                    self._on_snapshot(effect)
                case ReadAnswered(tag=tag, index=index):
                    self._reads.pop(tag)(index)
                case CoordinatorIs():
                    self._on_coordinator(effect)
                case MembershipChanged() | Regained():
                    self._on_standing(effect)
        if not self._round_scheduled and self.engine.wants_round:
            self._schedule_round(turns=_TURNS_OF_SYNC if is_silent else 0)

    def _on_standing(self, effect: MembershipChanged | Regained) -> None:
        match effect:
            case MembershipChanged(membership=membership):
                self._on_membership(membership)
            case Regained():
                log.warning("log-regained", extra={"index": self.engine.raft.stable_index})

    def _on_snapshot(self, effect: SendPiece | Installed | Compact) -> None:
        match effect:
            case SendPiece(snapshot=snapshot, offset=offset, size=size):
                data = self._store.snapshots.read_piece(snapshot, offset, size)
                if data is not None:
                    piece = SnapshotPiece(effect.term, effect.round, snapshot, offset, data)
                    self._send(effect.to, piece)
            case Installed(snapshot=snapshot):
                log.info("snapshot-taken", extra={"index": snapshot.index, "bytes": snapshot.size})
                _, state = self._store.snapshots.read(snapshot.index)
                self._listener.on_restored(state)
            case Compact():
                self._writer.compact()

    def _on_coordinator(self, effect: CoordinatorIs) -> None:
        now_ms = self._clock.now_ms()
        if effect.coordinator is None:
            if self._leaderless_since is None:
                self._leaderless_since = now_ms
        elif self._leaderless_since is not None:
            self.leaderless_ms_max = max(self.leaderless_ms_max, now_ms - self._leaderless_since)
            self._leaderless_since = None
        others, is_other = self._other_leads, effect.coordinator not in (None, self._me)
        if is_other and others is not None and not others.done():
            others.set_result(None)
        log.info(
            "leader-changed",
            extra={"leader": effect.coordinator, "term": self.engine.raft.term},
        )
        self._listener.on_coordinator(effect.coordinator, is_self=effect.is_self)

    # --- what others may look at ------------------------------------------------------------------

    @property
    def store(self) -> LogStore:
        return self._store

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms()

    @property
    def sync_ms(self) -> float:
        return self._writer.sync_ms

    @property
    def syncs(self) -> int:
        return self._writer.syncs

    @property
    def size_bytes(self) -> int:
        return self._store.size_bytes

"""One peer of a simulation: the same cores and the same log as a real one, driven by hand.

It is what `peer/` is with asyncio: effects are performed in order, writes that come while a sync
runs wait for the next one, and a turn ends with a round of engine and scheduler. It refuses
nothing and checks nothing: that is the referees' part.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

import msgspec

from p2psched.core import scheduler as sched
from p2psched.core.feed import Say
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.owner import CopyBlobs, StartBatch
from p2psched.core.raft import engine as raft
from p2psched.core.raft.effects import (
    Compact,
    HandOver,
    Installed,
    LoopLate,
    MembershipChanged,
    Persist,
    Regained,
    Send,
    SendPiece,
    Tick,
)
from p2psched.core.raft.timing import Timing
from p2psched.core.raft.together import MANY_MIN
from p2psched.core.state import LedgerState
from p2psched.model.commands import PeerInfo
from p2psched.model.ids import PeerId
from p2psched.model.raft import HardState, Member, Membership
from p2psched.store.log import LogStore, Recovered
from p2psched.testing.sim_blobs import SimBlobs
from p2psched.testing.sim_checkpoints import SavingExecutor
from p2psched.testing.sim_cutoff import Notes
from p2psched.testing.sim_disk import SimDisk
from p2psched.testing.sim_exclusive import Watch
from p2psched.testing.sim_executor import BatchStops, ComesBack, TasksEnd, Tends, Work
from p2psched.testing.sim_items import (
    Arrived,
    AskedHere,
    Caller,
    ClockDue,
    CopiesEnd,
    GivenUp,
    HandOverHere,
    Item,
    LeaveHere,
    ReadHere,
    SaveEnds,
    SimClock,
    SyncEnds,
    TickDue,
    TurnEnds,
    decode_wire,
    encode_wire,
    event_of,
)
from p2psched.testing.sim_joining import Joining
from p2psched.testing.sim_keeper import SimKeeper
from p2psched.testing.sim_needs import offers_of
from p2psched.testing.sim_reads import Reads
from p2psched.testing.sim_saves import Saves
from p2psched.testing.sim_space import SimSpace
from p2psched.testing.sim_world import Founding, World
from p2psched.testing.sim_writes import Writes

CLOCK_US: Final = 100_000  # between two looks of the scheduler at the time
LATE_FADES: Final = 0.95  # of how late it was before, at each look
ROUNDS_MAX: Final = 4  # in one turn; what is left waits for the next
NEXT_TURN_US: Final = 50
NOTHING: Final = Recovered(hard_state=HardState(), entries=[], torn_bytes=0, files=0)
INCARNATION_FILE: Final = "incarnation"


class SimPeer:
    """A disk and, while `alive`, a process on it."""

    def __init__(
        self,
        world: World,
        *,
        number: int,
        member: Member,
        slots: int,
        timing: Timing,
        segment_bytes: int,
        founding: Founding | None,
    ) -> None:
        self._world = world
        self.number = number
        self.member = member
        self.slots = slots
        self.disk = SimDisk(random.Random(world.rng.getrandbits(64)))
        self.alive = self.paused = False
        self.level = KNOWN_LEVEL  # of its processes from the next one on
        self.slow_sync_us = 0  # that each sync takes more: a disk that is about to die
        self.process = 0  # counts processes; what belongs to an older one is void
        self.suspended_us: int | None = None  # since when its machine sleeps
        self.backlog: list[tuple[int, Item]] = []  # of a paused process: when it came
        self.is_full = False  # its disk takes no large results
        self.is_rotten = False  # its disk was damaged since the last start
        self.is_hurt = False  # its log was, and is not whole again
        self.blobs, self.notes = SimBlobs(member.peer), Notes()
        self._timing, self._segment_bytes, self._founding = timing, segment_bytes, founding
        self._reset()

    @property
    def id(self) -> PeerId:
        return self.member.peer

    @property
    def state(self) -> LedgerState:
        return self.scheduler.machine

    @property
    def log(self) -> LogStore:
        return self.writes.log

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms(self._world.now_us)

    # --- the life of a process ---

    def _reset(self) -> None:
        """A new process that knows nothing."""
        world, me = self._world, self.member
        self._clock = SimClock(world.rng, world.faults.drift_ppm)
        info = PeerInfo(self.id, 0, me.name, me.address, 0, self.slots, "0", "3", self.level)
        self.scheduler = sched.Scheduler(info, offers=offers_of(self.number))
        self.engine = self._new_engine(NOTHING)
        self.watch = Watch(world, self)
        drawn = random.Random(world.rng.getrandbits(64))
        self.executor = SavingExecutor(self, world, drawn)
        self.space = SimSpace(self, world)
        self.writes = Writes(self, world)
        self.saves = Saves(self, world)
        self._looked_ms, self._late_ms = 0, 0.0  # at the time, and how late it looked lately
        self._tick_at_us = 0
        self._turn_is_due = self.leaving = False
        self._joining = Joining(self, world)
        self._keeper = SimKeeper(self, world)
        self.reads = Reads(self, world)
        self.last_batch = 0  # that it handed to its executor before it left or was drained
        self.commit_seen = self.term_led = 0  # how far the referees have looked
        self.membership_seen: Membership | None = None  # likewise

    def _new_engine(self, found: Recovered) -> raft.RaftEngine:
        return raft.RaftEngine(
            me=self.id,
            rng=random.Random(self._world.rng.getrandbits(64)),
            timing=self._timing,
            hard_state=found.hard_state,
            entries=found.entries,
            now_ms=self.now_ms,
            decorate=self.scheduler.decorate,
            snapshot=found.snapshot,
            compaction=self._world.snapshots.compaction,
            lost=found.lost is not None,
            many_min=ord(self.id[-1]) % 2 * MANY_MIN,  # half of them spare always
        )

    def boot(self) -> None:
        """Start a process. Raises OSError or PowerLostError if the disk doesn't let it."""
        assert not self.alive
        self.process += 1
        self.alive = True
        self._reset()
        incarnation = self.next_incarnation()
        recovered = self.writes.open(self._segment_bytes)
        is_new = not recovered.entries and recovered.snapshot is None and recovered.lost is None
        if self._founding is not None and is_new:
            hard_state, entries = self._founding.hard_state, list(self._founding.entries)
            self.writes.found(hard_state, entries)
            recovered = replace(recovered, hard_state=hard_state, entries=entries)
        info = msgspec.structs.replace(self.scheduler.info, incarnation=incarnation)
        self.scheduler = sched.Scheduler(
            info,
            offers=offers_of(self.number),
            max_disconnect_ms=self._world.max_disconnect_ms,
        )
        self.engine = self._new_engine(recovered)
        self.engine.concern.through = self.scheduler.feeding.roll.through
        if recovered.snapshot is not None:
            self.saves.restore(recovered.snapshot, recovered.state, recovered.damaged)
        for event in self.notes.begin(self._world.now_us, self.now_ms):
            self.decide(event)
        self._world.later(1 + self._world.rng.randrange(CLOCK_US), self, ClockDue())
        self._end_turn(self.now_ms)

    def die(self, *, power_lost: bool) -> None:
        """The process is gone; with `power_lost` unsynced bytes are in doubt, too."""
        self.watch.die()
        self.alive = self.paused = False
        self.suspended_us = None
        self.process += 1
        self.backlog.clear()
        if power_lost:
            self.disk.crash()
            self._world.on_blobs_gone(self, self.blobs.lose_power())
        else:
            self.disk.kill()
            self.disk.steps_left = None

    def step_wall_clock(self, by_ms: int) -> None:
        self._clock.step_wall(by_ms)

    def begin_anew(self, peer: PeerId) -> None:
        """On an empty disk, as somebody whom nobody knows."""
        assert not self.alive
        self.member = msgspec.structs.replace(self.member, peer=peer)
        self.disk = SimDisk(random.Random(self._world.rng.getrandbits(64)))
        self.blobs, self.notes = SimBlobs(peer), Notes()
        self.is_full = self.is_rotten = self.is_hurt = False
        self._founding = None

    def next_incarnation(self) -> int:
        known = INCARNATION_FILE in self.disk.names()
        incarnation = 1 + (int(self.disk.read(INCARNATION_FILE)) if known else 0)
        self.disk.replace(INCARNATION_FILE, str(incarnation).encode())
        return incarnation

    # --- what comes in ---

    def take(self, item: Item) -> None:
        """One event of the loop."""
        now_ms = self.now_ms
        match item:
            case Arrived(sender=sender, data=data, to=to):
                if to == self.id:  # else it was meant for who was here before
                    self._joining.receive(sender, decode_wire(data), now_ms)
            case TickDue(at_us=at_us):
                self._on_tick(at_us, now_ms)
            case TurnEnds():
                self._turn_is_due = False
                self._rounds(now_ms)
                self._arm_tick(now_ms)
                return
            case SyncEnds() | SaveEnds():
                self._on_written(item)
            case ClockDue():
                self._on_clock(now_ms)
            case TasksEnd() | BatchStops() | ComesBack() | Tends() | CopiesEnd():
                self._on_work(item, now_ms)
            case _:
                self._on_caller(item, now_ms)
        self._end_turn(now_ms)
        self._arm_tick(now_ms)

    @property
    def wall_ms(self) -> int:
        return self._clock.wall_ms(self._world.now_us)

    def step(self, event: raft.EngineEvent) -> None:
        """One step of the engine, with what follows from it."""
        self._perform(self.engine.step(event))

    def _on_caller(self, item: Caller, now_ms: int) -> None:
        match item:
            case AskedHere(tag=tag, command=command):
                self.decide(sched.Asked(now_ms, tag, command))
            case GivenUp(tag=tag):
                self.decide(sched.GaveUp(now_ms, tag))
            case ReadHere(tag=tag):
                self.engine.read_index(tag)
            case LeaveHere(tag=tag):
                self.leaving = True
                self.decide(sched.Leaving(now_ms, tag))
            case HandOverHere(avoid=avoid):
                self.step(HandOver(now_ms, avoid))
            case _:
                self.step(event_of(item, now_ms, self.wall_ms))

    def _on_work(self, item: Work | CopiesEnd, now_ms: int) -> None:
        if isinstance(item, CopiesEnd):
            self.decide(self._keeper.end_copies(item))
            return
        for event in self.executor.on_due(item):
            self.decide(sched.Executed(now_ms, event))

    def _on_written(self, item: SyncEnds | SaveEnds) -> None:
        if isinstance(item, SaveEnds):
            self._perform(self.saves.end(item.snapshot, item.state))
            return
        self._perform(self.writes.end_sync())
        self.writes.go_on()

    def _on_tick(self, at_us: int, now_ms: int) -> None:
        if at_us != self._tick_at_us:
            return  # a timer that was moved forward
        self._tick_at_us = 0
        if now_ms >= self.engine.due_ms:
            self.step(Tick(now_ms, self.wall_ms))

    def _on_clock(self, now_ms: int) -> None:
        self._world.later(CLOCK_US, self, ClockDue())
        late_ms = now_ms - self._looked_ms - CLOCK_US / 1000 if self._looked_ms else 0
        self._looked_ms, self._late_ms = now_ms, max(late_ms, self._late_ms * LATE_FADES)
        self.step(LoopLate(now_ms, self._late_ms))
        self.writes.go_on()
        self.writes.mark()
        self._perform(self.space.look())
        self.decide(self.space.clocked(now_ms))
        if self.scheduler.watching.watchdog.is_due(now_ms):
            self.decide(sched.Watched(now_ms, self.executor.standing()))
        for report in self.executor.look():
            self.decide(sched.Executed(now_ms, report))
        self._keeper.look(now_ms)
        for event in self._joining.look(now_ms, self.wall_ms):
            self.step(event)

    # --- turns ---

    def _end_turn(self, now_ms: int) -> None:
        turn_us = self._world.faults.turn_us
        if not turn_us:
            self._rounds(now_ms)
        elif not self._turn_is_due:
            self._turn_is_due = True
            self._world.later(1 + self._world.rng.randrange(turn_us), self, TurnEnds())

    def _rounds(self, now_ms: int) -> None:
        engine, resting = self.engine, self.scheduler.resting
        for _ in range(ROUNDS_MAX):
            if engine.has_round:
                self.step(raft.Round(now_ms, self.wall_ms))
            if resting.wants_round(now_ms):
                self.decide(sched.Round(now_ms))
            self.saves.begin_if_due()
            if not engine.wants_round:
                return
        if not self._turn_is_due:
            self._turn_is_due = True
            self._world.later(NEXT_TURN_US, self, TurnEnds())

    def _arm_tick(self, now_ms: int) -> None:
        """One timer, moved forward when it is due earlier; a late one looks again."""
        due_us = (self.engine.due_ms - now_ms) * 1000
        delay_us = due_us if due_us > 0 else 1
        at_us = self._world.now_us + delay_us
        if self._tick_at_us == 0 or at_us < self._tick_at_us:
            self._tick_at_us = at_us
            self._world.later(delay_us, self, TickDue(at_us))

    # --- effects ---

    def _perform(self, effects: list[raft.EngineEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    self._world.on_said(self, to, message)
                    self._world.send(self, to, encode_wire(message))
                case Persist():
                    self.writes.persist(effect)
                case SendPiece() | Installed() | Compact():
                    self.saves.perform(effect)
                case raft.Deliver(batches=batches):
                    self.saves.before(batches)
                    self.decide(sched.Applied(self.now_ms, batches))
                    self.reads.answer()
                case raft.SendForward(to=to, forward=forward):
                    self._world.send(self, to, encode_wire(forward))
                case raft.CoordinatorIs(coordinator=coordinator, is_self=is_self):
                    self.decide(sched.CoordinatorChanged(self.now_ms, coordinator, is_self))
                case raft.ReadAnswered(tag=tag, index=index):
                    self.reads.on_index(tag, index)
                case MembershipChanged() | Regained():
                    self._world.happened["logs regained"] += isinstance(effect, Regained)

    def decide(self, event: sched.SchedulerEvent) -> None:
        """One step of the scheduler, with what follows from it."""
        for effect in self.scheduler.step(event):
            match effect:
                case sched.AppendToLedger(envelopes=envelopes):
                    self.engine.append(envelopes)
                case sched.Store():
                    self._world.on_stored(self, effect)
                    self._keeper.on_stored(effect.events)
                case Say(to=to, message=message):
                    self._world.say(self, to, message)
                case StartBatch(batch=batch):
                    self.space.start(batch)
                case CopyBlobs() | sched.Answered(tag=SimKeeper.TAG):
                    self._keeper.perform(effect)
                case sched.Answered(tag=tag, outcome=outcome):
                    self._world.on_answered(self, tag, outcome)
                case _:
                    self.space.change(effect)

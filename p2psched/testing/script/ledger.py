"""A whole peer on a stage: engine, scheduler, and tasks that end when the script says so."""

from __future__ import annotations

import random
from typing import Final, Protocol

import msgspec

from p2psched.core import scheduler as sched
from p2psched.core.feed import Say
from p2psched.core.machine import Machine
from p2psched.core.owner import StartBatch, StopBatch
from p2psched.core.raft import engine as raft
from p2psched.core.raft.effects import (
    AddMember,
    Compact,
    HandOver,
    Installed,
    MembershipChanged,
    Persist,
    Propose,
    Receive,
    Regained,
    RemoveMember,
    Send,
    SendPiece,
    SnapshotSaved,
    Synced,
    Tick,
)
from p2psched.core.raft.state import Role
from p2psched.core.snapshot import encode_machine
from p2psched.model import chunks
from p2psched.model.commands import Command, Outcome, PeerInfo
from p2psched.model.execution import Batch, Committed, Ended, Progress
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.messages import Forward
from p2psched.model.raft import Entry, HardState, Member, RaftMessage, Snapshot
from p2psched.model.steal_messages import StealMessage
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.store.snapshots import described
from p2psched.testing.script.actor import COMPACTION, TIMING, Actor, Scene, Standing
from p2psched.testing.script.words import entries_words, snapshot_words

CLOCK_MS: Final = 100  # between two looks of the scheduler at the time, while a script waits
ROUNDS_MAX: Final = 50  # after one event: beyond it the peer never becomes quiet
WALL_MS: Final = 0
TASK_US: Final = 1_000_000  # that a task took: so long that a batch is one task
INCARNATION_FILE: Final = "incarnation"


class LedgerScene(Scene, Protocol):
    """What a whole peer needs of its stage besides."""

    def on_committed(self, batch: Committed) -> None: ...

    def check_state(self, peer: str, machine: Machine) -> None: ...

    def batch_words(self, batch: Batch, tasks: TaskSet) -> str: ...

    def outcome_words(self, outcome: Outcome) -> str: ...


class Run:
    """A batch that the executor has."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.left = batch.tasks
        self.stopping = False


class Peer(Actor):
    """What `peer/` is with asyncio: effects in order, rounds at the end of each event."""

    engine: raft.RaftEngine
    scheduler: sched.Scheduler

    def __init__(self, scene: LedgerScene, name: str, slots: int, level: int) -> None:
        super().__init__(scene, name)
        self._scene = scene
        self._slots = slots
        self._level = level  # of features that it knows

    def begin(
        self,
        hard_state: HardState,
        entries: list[Entry],
        snapshot: Snapshot | None,
        state: bytes | memoryview,
    ) -> None:
        known = INCARNATION_FILE in self.disk.names()
        self._incarnation = int(self.disk.read(INCARNATION_FILE)) if known else 0
        self._next_incarnation()
        info = PeerInfo(
            *(self.id, self._incarnation, self.name, self.address, 0, self._slots, "0", "3"),
            level=self._level,
        )
        self.scheduler = sched.Scheduler(info)
        self.engine = raft.RaftEngine(
            me=self.id,
            rng=random.Random(self.name),
            timing=TIMING,
            hard_state=hard_state,
            entries=entries,
            now_ms=self.scene.now_ms,
            decorate=self.scheduler.decorate,
            snapshot=snapshot,
            compaction=COMPACTION,
        )
        self.runs: dict[int, Run] = {}
        self._clock_ms = self.scene.now_ms + CLOCK_MS
        self._role = Role.FOLLOWER
        self._reads: list[tuple[int, int]] = []  # tag, what must be applied first
        self._floors: dict[int, int] = {}
        self._questions: dict[int, str] = {}
        self._next_tag = 1
        self._yields: frozenset[PeerId] | None = None
        if snapshot is not None:
            self._decide(sched.Restored(self.scene.now_ms, state))
        self._decide(sched.Began(self.scene.now_ms))
        self._rounds()

    def _next_incarnation(self) -> int:
        self._incarnation += 1
        self.disk.replace(INCARNATION_FILE, str(self._incarnation).encode())
        return self._incarnation

    # --- events ---

    def _step(self, event: raft.EngineEvent) -> None:
        self._perform(self.engine.step(event))

    def receive(self, sender: PeerId, message: msgspec.Struct) -> None:
        now_ms = self.scene.now_ms
        if isinstance(message, Forward):
            self._step(raft.Forwarded(now_ms, message))
        elif isinstance(message, StealMessage):
            self._decide(sched.Followed(now_ms, sender, message))
        else:
            assert isinstance(message, RaftMessage)
            self._step(Receive(now_ms, sender, message))
        self._rounds()

    def tick(self) -> None:
        now_ms = self.scene.now_ms
        if now_ms >= self.engine.due_ms:
            self._step(Tick(now_ms, WALL_MS))
        if now_ms >= self._clock_ms:
            self.look()
        self._rounds()

    def look(self) -> None:
        """The scheduler looks at the time: who is silent, what must be proposed again."""
        now_ms = self.scene.now_ms
        self._clock_ms = now_ms + CLOCK_MS
        self._decide(
            sched.Clocked(now_ms, self.engine.contacts(), removed=self.engine.raft.removed)
        )
        self._rounds()

    def on_synced(self, token: int) -> None:
        self._step(Synced(self.scene.now_ms, token))
        self._rounds()

    def ask(self, command: Command, question: str) -> None:
        self._decide(sched.Asked(self.scene.now_ms, self._tag(question), command))
        self._rounds()

    def leave(self) -> None:
        self._decide(sched.Leaving(self.scene.now_ms, self._tag("leave")))
        self._rounds()

    def _tag(self, question: str) -> int:
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._questions[tag] = question
        return tag

    def add(self, member: Member) -> None:
        self._step(AddMember(self.scene.now_ms, WALL_MS, member))
        self._rounds()

    def remove(self, peer: PeerId) -> None:
        self._step(RemoveMember(self.scene.now_ms, WALL_MS, peer))
        self._rounds()

    def read(self) -> None:
        tag = self._tag("read")
        self._floors[tag] = self.scene.referee.last_committed
        self.engine.read_index(tag)
        self._rounds()

    def save_snapshot(self) -> None:
        head = self.engine.describe()
        if head is None:
            self.scene.say(f"{self.name} has nothing new to save")
            return
        state = encode_machine(self.scheduler.machine)
        snapshot = described(head, state)
        self.log.snapshots.save(snapshot, state)
        self._step(SnapshotSaved(self.scene.now_ms, snapshot))

    def future(self, payload: bytes) -> None:
        """Append an entry as a later version might."""
        assert self.engine.raft.is_leader
        self._step(Propose(self.scene.now_ms, WALL_MS, payload))  # type: ignore[arg-type]

    # --- tasks ---

    def finish(self, job: JobId, tasks: TaskSet, cause: Cause, text: str) -> TaskSet:
        """Tasks that run here end like this; which of them did run."""
        ended = EMPTY
        for run in list(self.runs.values()):
            here = run.left & tasks if run.batch.job == job else EMPTY
            if not here:
                continue
            ended = ended | here
            run.left = run.left - here
            segments = tuple(
                Segment(start, stop, cause, _values(run.batch, start, stop, text), TASK_US)
                for start, stop in here.ranges
            )
            if not run.left:
                del self.runs[run.batch.id]
            self._executed(Progress(run.batch.id, segments))
            if not run.left:
                self._executed(Ended(run.batch.id, EMPTY))
        self._rounds()
        return ended

    def end_stopped(self) -> bool:
        """The processes of stopped batches are gone. False if there were none."""
        stopped = [run for run in self.runs.values() if run.stopping]
        for run in stopped:
            del self.runs[run.batch.id]
            self._executed(Ended(run.batch.id, EMPTY))
        if stopped:
            self._rounds()
        return bool(stopped)

    def _executed(self, event: Progress | Ended) -> None:
        self._decide(sched.Executed(self.scene.now_ms, event))

    # --- effects ---

    def _rounds(self) -> None:
        for _ in range(ROUNDS_MAX):
            now_ms = self.scene.now_ms
            self._step(raft.Round(now_ms, WALL_MS))
            self._decide(sched.Round(now_ms))
            self.sync_if_quick()
            if self._yields is not None:
                avoid, self._yields = self._yields, None
                self._step(HandOver(now_ms, avoid))
            elif not self.engine.wants_round:
                return
        raise AssertionError("it never becomes quiet")

    def _perform(self, effects: list[raft.EngineEffect]) -> None:
        self._tell_role()
        for effect in effects:
            match effect:
                case Persist():
                    self.persist(effect)
                case Send(to=to, message=message):
                    self.scene.post(self.name, to, message)
                case raft.SendForward(to=to, forward=forward):
                    self.scene.post(self.name, to, forward)
                case SendPiece():
                    self.send_piece(effect)
                case MembershipChanged():
                    pass
                case Regained():
                    self.scene.say(f"{self.name} votes again", "roles")
                case _:
                    self._learn(effect)

    def _learn(
        self, effect: raft.Deliver | raft.CoordinatorIs | raft.ReadAnswered | Compact | Installed
    ) -> None:
        say, name = self.scene.say, self.name
        match effect:
            case raft.Deliver(batches=batches):
                self._apply(batches)
            case raft.CoordinatorIs(coordinator=coordinator, is_self=is_self):
                if is_self:
                    say(f"{name} coordinates", "roles")
                self._decide(sched.CoordinatorChanged(self.scene.now_ms, coordinator, is_self))
            case raft.ReadAnswered(tag=tag, index=index):
                self._on_read(tag, index)
            case Compact():
                self.log.compact()
                say(f"{name} keeps entries from {self.engine.raft.base_index + 1} on")
            case Installed(snapshot=snapshot):
                say(f"{name} restores snapshot {snapshot_words(snapshot)}")
                state = self.log.snapshots.read(snapshot.index)[1]
                self._decide(sched.Restored(self.scene.now_ms, state))
                self._scene.check_state(name, self.scheduler.machine)
                self._answer_reads()

    def _tell_role(self) -> None:
        core = self.engine.raft
        if core.role is self._role:
            return
        self._role = core.role
        if self._role is Role.LEADER:
            self.scene.say(f"{self.name} leads in term {core.term}", "roles")
            self.scene.referee.on_leader(self.name, core.term, self._has)

    def _has(self, entry: Entry) -> bool:
        core = self.engine.raft
        if entry.index <= core.base_index:
            return True
        return entry in core.entries(entry.index, entry.index + 1)

    def _apply(self, batches: tuple[Committed, ...]) -> None:
        core = self.engine.raft
        for batch in batches:
            for entry in core.entries(batch.index, batch.index + 1):
                self.scene.referee.on_commit(self.name, entry)
            self._scene.on_committed(batch)
        self._decide(sched.Applied(self.scene.now_ms, batches))
        self._scene.check_state(self.name, self.scheduler.machine)
        self._answer_reads()

    def _decide(self, event: sched.SchedulerEvent) -> None:
        say, name, scene = self.scene.say, self.name, self._scene
        for effect in self.scheduler.step(event):
            match effect:
                case sched.AppendToLedger(envelopes=envelopes):
                    self.engine.append(envelopes)
                case StartBatch(batch=batch):
                    self.runs[batch.id] = Run(batch)
                    say(f"{name} starts {scene.batch_words(batch, batch.tasks)}")
                case StopBatch(batch=number, cause=cause):
                    run = self.runs[number]
                    run.stopping = True
                    say(f"{name} stops {scene.batch_words(run.batch, run.left)} ({cause})")
                case sched.Answered(tag=tag, outcome=outcome):
                    question = self._questions.pop(tag, "!! what nobody asks any more")
                    say(f"{name} answers {question}: {scene.outcome_words(outcome)}")
                case sched.YieldLead(avoid=avoid):
                    say(f"{name} hands over its lead")
                    self._yields = avoid
                case sched.RenewIncarnation():
                    number = self._next_incarnation()
                    say(f"{name} lives on as {name}/{number}")
                    self._decide(sched.Renewed(self.scene.now_ms, number))
                case Say(to=to, message=message):
                    scene.post(name, to, message)
                case _:  # what is kept, and noticed
                    pass

    # --- reads ---

    def _on_read(self, tag: int, index: int | None) -> None:
        if index is None:
            self.scene.say(f"{self.name} can't tell now: ask again")
            return
        self.scene.referee.on_read(self.name, index, self._floors.pop(tag))
        self._reads.append((tag, index))
        self._answer_reads()

    def _answer_reads(self) -> None:
        applied = self.scheduler.machine.applied_index
        ready = [index for _, index in self._reads if index <= applied]
        self._reads = [held for held in self._reads if held[1] > applied]
        for _ in ready:
            self.scene.say(f"{self.name} may be read now")

    # --- what others may look at ---

    def log_words(self) -> str:
        core = self.engine.raft
        entries = core.entries(core.base_index + 1, core.last_index + 1)
        before = f"snapshot up to {core.base_index}, " if core.base_index else ""
        return before + entries_words(entries, self.scene.payload)

    @property
    def raft_due_ms(self) -> int:
        return self.engine.due_ms

    @property
    def due_ms(self) -> int:
        return min(self.engine.due_ms, self._clock_ms)

    @property
    def standing(self) -> Standing:
        core = self.engine.raft
        return Standing(
            *(core.role, core.term, core.vote, core.leader, core.commit, core.last_index),
            core.membership,
        )


def _values(batch: Batch, start: int, stop: int, text: str) -> bytes:
    return chunks.pack([(text or f"by-{batch.grant}").encode()] * (stop - start))

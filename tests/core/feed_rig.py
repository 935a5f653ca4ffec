"""A ledger, two feeders of it and a follower, without anything between them but lists."""

from __future__ import annotations

from collections.abc import Iterable

from p2psched.core.feed import Say
from p2psched.core.feeding import Feeding
from p2psched.core.follower import Follower
from p2psched.core.follower_events import FollowerEffect, FollowerEvent, Passed, Told
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.owner import StartBatch, StopBatch
from p2psched.core.scheduler_events import Began, Clocked, Round
from p2psched.model.commands import (
    Command,
    Envelope,
    PeerInfo,
    PeerUp,
    Place,
    RaiseLevel,
    SubmitJob,
)
from p2psched.model.execution import Batch, Committed
from p2psched.model.feed_messages import Feed, FeedElsewhere, FeedReport, FeedReported, Follow
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec
from p2psched.model.messages import Forward
from p2psched.model.raft import Member, Membership
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim_jobs import sim_job

L, A, B, F = PeerId("l"), PeerId("a"), PeerId("b"), PeerId("f")
GROUP = Membership(tuple(Member(peer, peer, f"{peer}:1") for peer in (A, B, L)))
JOB = JobId("j")


def info(peer: PeerId, incarnation: int = 1, slots: int = 2) -> PeerInfo:
    return PeerInfo(peer, incarnation, peer, f"{peer}:1", 0, slots, "0", "3", KNOWN_LEVEL)


def spec(count: int = 4) -> JobSpec:
    return sim_job(TaskSet.of(0, count), mean_us=1_000)


class Holder:
    """One peer with the whole ledger, as far as followers see it."""

    def __init__(self, name: PeerId) -> None:
        self.name = name
        self.group = GROUP
        self.led = True
        self.machine = Machine()
        self.feeding = Feeding(name, self.machine)
        self.feeding.on_coordinator(L)

    def clock(self, now_ms: int) -> None:
        self.feeding.on_clock(Clocked(now_ms, {}, frozenset(), self.group, self.led))

    def apply(self, batch: Committed) -> None:
        outcomes, events = self.machine.apply(batch)
        self.feeding.feeder.on_applied(batch, outcomes, events)


class Rig:
    def __init__(self, *, name: PeerId = F) -> None:
        self.name = name
        self.now_ms = 1_000
        self.log: list[Committed] = []
        self.holders = {peer: Holder(peer) for peer in (A, B, L)}
        self.cut: set[PeerId] = set()  # holders that neither hear nor say anything
        self.lag: set[PeerId] = set()  # and those that apply nothing
        self.delay_ms = 0  # of what a holder says
        self.follower = Follower(info(name), GROUP, L)
        self._late: list[tuple[int, Told]] = []
        self.started: list[Batch] = []
        self.stopped: list[int] = []
        self.said: list[Say] = []  # by the follower
        self.told: list[Feed] = []
        self.proposed: list[Envelope] = []
        for holder in self.holders.values():
            holder.clock(self.now_ms)
        self.commit(*(PeerUp(info(peer, slots=0)) for peer in (A, B, L)))
        self.commit(RaiseLevel(KNOWN_LEVEL))

    # --- the ledger ---

    def commit(self, *commands: Command) -> Committed:
        return self.commit_all(
            Envelope(L, 1_000 * len(self.log) + n, command) for n, command in enumerate(commands)
        )

    def commit_all(self, envelopes: Iterable[Envelope]) -> Committed:
        batch = Committed(len(self.log) + 1, self.now_ms, 0, tuple(envelopes))
        self.log.append(batch)
        for name, holder in self.holders.items():
            if name not in self.lag:
                self.catch_up(holder)
        return batch

    def catch_up(self, holder: Holder) -> None:
        for batch in self.log[holder.machine.applied_index :]:
            holder.apply(batch)

    def submit(self, *shares: TaskSet, incarnation: int = 1, job: JobId = JOB) -> list[int]:
        """A job, each share of it placed on the follower: its grants."""
        self.commit(SubmitJob(job, spec()))
        grants = []
        for share in shares:
            self.commit(Place(job, share, F, incarnation))
            grants.append(self.holders[L].machine.command_index)
        return grants

    # --- turns ---

    def begin(self) -> None:
        self.step(Began(self.now_ms))
        self.settle()

    def step(self, event: FollowerEvent) -> None:
        self._perform(self.follower.step(event))
        self._perform(self.follower.step(Round(self.now_ms)))

    def _perform(self, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Say(to=to, message=message):
                    self.said.append(effect)
                    if to not in self.cut:
                        self._carry(to, message)
                case StartBatch(batch=batch):
                    self.started.append(batch)
                case StopBatch(batch=number):
                    self.stopped.append(number)
                case _:
                    pass

    def _carry(self, to: PeerId, message: object) -> None:
        if isinstance(message, Forward):
            self.proposed += message.envelopes
        elif isinstance(message, Follow):
            self.holders[to].feeding.on_message(self.now_ms, self.name, message)

    def settle(self, *, commits: bool = True) -> None:
        """Until nobody has anything to say."""
        busy = True
        while busy:
            busy = False
            if commits and self.proposed:
                proposed, self.proposed = self.proposed, []
                self.commit_all(proposed)
                busy = True
            for name, holder in self.holders.items():
                for say in holder.feeding.on_round():
                    busy = True
                    if name not in self.cut:
                        self._tell(name, say)

    def _tell(self, name: PeerId, say: Say) -> None:
        match say.message:
            case Feed() | FeedElsewhere():
                if isinstance(say.message, Feed):
                    self.told.append(say.message)
                if self.delay_ms:
                    due_ms = self.now_ms + self.delay_ms
                    self._late.append((due_ms, Told(due_ms, name, say.message)))
                else:
                    self.step(Told(self.now_ms, name, say.message))
            case FeedReport():
                self.holders[say.to].feeding.on_message(self.now_ms, name, say.message)
            case FeedReported():
                self.holders[say.to].feeding.on_message(self.now_ms, name, say.message)
            case _:
                pass

    def run(self, duration_ms: int, *, commits: bool = True) -> None:
        for _ in range(duration_ms // 100):
            self.now_ms += 100
            for name, holder in self.holders.items():
                if name not in self.lag:
                    holder.clock(self.now_ms)
            due = [told for due_ms, told in self._late if due_ms <= self.now_ms]
            self._late = [late for late in self._late if late[0] > self.now_ms]
            for told in due:
                self.step(told)
            self.step(Passed(self.now_ms))
            self.settle(commits=commits)

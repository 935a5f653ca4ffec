"""What a peer decides that holds no ledger: it runs what it owns and follows a feed (ADR 0034).

Its part of the state is what its feeder says that it owns, as of one ledger index after another.
`Owner` works on that part as it does on all of it; proposals go to the feeder and are repeated
until the feed brings their outcome. It refuses what is older than what it has seen, from whomever
it comes, and what leaves a gap: then it asks anew, for all of its part.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from p2psched.core.catch_up import catch_up
from p2psched.core.drain import is_draining
from p2psched.core.feed import Say, holders_wanted, members_of
from p2psched.core.follower_events import FollowerEffect, FollowerEvent, Lost, Passed, Told
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.owner import Owner
from p2psched.core.replica import Proposals
from p2psched.core.scheduler_events import (
    Answered,
    Asked,
    Began,
    Copied,
    Executed,
    GaveUp,
    Leaving,
    Renewed,
    RenewIncarnation,
    Round,
)
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import (
    Command,
    Complete,
    Envelope,
    GiveBack,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Rejected,
)
from p2psched.model.feed_messages import FedJob, Feed, FeedElsewhere, Follow
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec
from p2psched.model.messages import Forward
from p2psched.model.raft import Membership
from p2psched.model.taskset import TaskSet

BEAT_MS: Final = 400  # between two words to the feeder, which answers each
FEED_PATIENCE_MS: Final = 1_500  # a feeder that says nothing for so long is left
_NUMBERS_PER_INCARNATION: Final = 1 << 20


class FollowedJob(Job, array_like=True, eq=False, gc=False):
    """As far as this peer is told: what it owns of it."""

    parts: tuple[tuple[int, TaskSet], ...] = ()

    def attempts(self, tasks: TaskSet) -> list[tuple[int, TaskSet]]:
        return [(number, same) for number, part in self.parts if (same := part & tasks)]


def _followed(job: JobId, spec: JobSpec) -> FollowedJob:
    made = FollowedJob.of(job, spec, index=0, wall_ms=0)
    assert isinstance(made, FollowedJob)
    return made


class Follower:
    """`info.incarnation` must be new for this start of the process; `group` holds the ledger."""

    def __init__(self, info: PeerInfo, group: Membership, leader: PeerId | None) -> None:
        self.machine = LedgerState()  # only this peer's part, and who holds the whole ledger
        self.owner = Owner(self.machine, slots=info.slots)
        self._info = info
        self._proposals = Proposals(info.peer, info.incarnation)
        self._append: list[Envelope] = []
        self._tags: dict[int, int] = {}  # request -> tag of the caller
        self._arrivals: set[int] = set()  # requests that tell the ledger of us
        self._leaving = False
        self._farewell: int | None = None
        self._is_renewing = False
        self.is_short = False  # as its feeder sees it: too few who hold the ledger are up
        self._known = 0  # the newest incarnation of ours that the ledger knows
        self.group = Membership()
        self.leader = leader
        self.feeder: PeerId | None = None
        self.cursor = 0
        self._tried: dict[PeerId, None] = {}  # feeders that were of no use, since one was
        self._number = info.incarnation * _NUMBERS_PER_INCARNATION
        self._turn = 0
        self._told: set[JobId] | None = None  # while all is told anew: what was
        self._heard_ms = 0
        self._beat_ms = 0
        self._stamp = (0, 0)
        self._out: list[FollowerEffect] = []
        self._take_group(group)

    def step(self, event: FollowerEvent) -> list[FollowerEffect]:
        """Take one event; perform the effects in order."""
        now_ms = event.now_ms
        match event:
            case Round():
                self._on_round(now_ms)
            case Told(sender=sender, message=message):
                self._on_told(now_ms, sender, message)
            case Executed(event=executed):
                self._out += self.owner.on_executed(executed)
            case Copied(number=number, blobs=blobs):
                self.owner.on_copied(number, blobs)
            case Passed():
                self._on_passed(now_ms)
            case Lost(peer=peer):
                if peer == self.feeder:
                    self._seek(now_ms)
            case _:
                self._on_caller(event)
        out, self._out = self._out, []
        return out

    # --- callers and lives ---

    def _on_caller(self, event: Began | Asked | GaveUp | Renewed | Leaving) -> None:
        now_ms = event.now_ms
        match event:
            case Began():
                self._come_up(now_ms)
                self._seek(now_ms)
            case Asked(tag=tag, command=command):
                self._ask(tag, command, now_ms)
            case GaveUp(tag=tag):
                self._give_up(tag)
            case Renewed(incarnation=incarnation):
                self._is_renewing = False
                if not self._leaving:
                    before = self._info.incarnation
                    self._info = msgspec.structs.replace(self._info, incarnation=incarnation)
                    self._come_up(now_ms, continues=before)
            case Leaving(tag=tag):
                self._leaving, self._farewell = True, tag

    def _propose(self, command: Command, now_ms: int) -> int:
        envelope = self._proposals.propose(command, now_ms)
        self._append.append(envelope)
        return envelope.request

    def _ask(self, tag: int, command: Command, now_ms: int) -> None:
        busy = self._proposals.busy
        if busy is not None:
            self._out.append(Answered(tag, busy))
            return
        self._tags[self._propose(command, now_ms)] = tag

    def _give_up(self, tag: int) -> None:
        if tag == self._farewell:
            self._farewell = None
        for request in [request for request, asked in self._tags.items() if asked == tag]:
            del self._tags[request]
            self._proposals.forget(request)

    def _come_up(self, now_ms: int, *, continues: int = 0) -> None:
        for request in self._arrivals:
            self._proposals.forget(request)
        self._arrivals = {self._propose(PeerUp(self._info, self.owner.kept(), continues), now_ms)}

    def _say_farewell(self, now_ms: int) -> None:
        """Not before the ledger knows this incarnation, as in `Scheduler`."""
        if self._known < self._info.incarnation or self._farewell is None:
            return
        tag, self._farewell = self._farewell, None
        down = PeerDown(self._info.peer, self._info.incarnation, "stopped", stopped=True)
        self._ask(tag, down, now_ms)

    def _on_outcome(self, request: int, outcome: Outcome) -> None:
        if request in self._arrivals:
            self._arrivals.clear()
            if isinstance(outcome, Rejected):
                self._renew()
            return
        if self.owner.on_outcome(request, outcome):
            return
        tag = self._tags.pop(request, None)
        if tag is not None:
            self._out.append(Answered(tag, outcome))

    def _renew(self) -> None:
        if not self._leaving and not self._is_renewing:
            self._is_renewing = True
            self._out.append(RenewIncarnation())

    # --- whom to follow ---

    def feeders(self) -> list[PeerId]:
        """Who may feed this peer, best first: followers spread evenly, and again if one goes. Not
        the leader, if there are others."""
        ranked = sorted(
            (member.peer for member in members_of(self.group) if member.peer != self._info.peer),
            key=lambda peer: hashlib.blake2b((self._info.peer + peer).encode()).digest(),
        )
        return [p for p in ranked if p != self.leader] + [p for p in ranked if p == self.leader]

    def _seek(self, now_ms: int) -> None:
        """Follow somebody else, if there is anybody else."""
        if self.feeder is not None:
            self._tried[self.feeder] = None
        ranked = self.feeders()
        left = [peer for peer in ranked if peer not in self._tried]
        if not left:
            self._tried.clear()
            left = ranked
        self.feeder = left[0] if left else None
        self._begin(now_ms)

    def _begin(self, now_ms: int) -> None:
        """Ask for all of our part."""
        self._number += 1
        self._turn = 0
        self._told = None
        self._heard_ms = now_ms
        self._say(now_ms, tuple(self.machine.jobs))

    def _say(self, now_ms: int, jobs: tuple[JobId, ...] = ()) -> None:
        self._beat_ms = now_ms
        if self.feeder is not None:
            follow = Follow(self._number, self._turn, self.cursor, jobs)
            self._out.append(Say(self.feeder, follow))

    def _on_passed(self, now_ms: int) -> None:
        self._append += self._proposals.repeat(now_ms)
        if now_ms - self._heard_ms >= FEED_PATIENCE_MS:
            self._seek(now_ms)
        elif now_ms - self._beat_ms >= BEAT_MS:
            if self._turn:
                self._say(now_ms)
            else:  # the first word may be lost
                self._say(now_ms, tuple(self.machine.jobs))

    # --- the feed ---

    def _on_told(self, now_ms: int, sender: PeerId, message: Feed | FeedElsewhere) -> None:
        if sender != self.feeder or message.number != self._number:
            return
        if isinstance(message, FeedElsewhere):
            self.leader = message.leader
            self._take_group(message.group)
            self._seek(now_ms)
            return
        if message.turn <= self._turn:
            return  # a second time
        if message.turn != self._turn + 1 or message.index < self.cursor:
            self._begin(now_ms)
            return
        if message.turn == 1:
            self._tried.clear()
            self._append += self._proposals.repeat(now_ms, all_of_them=True)
        self._turn, self.cursor, self._heard_ms = message.turn, message.index, now_ms
        self._stamp = (message.stamp_ms, now_ms)
        self.leader = message.leader
        if message.group is not None:
            self._take_group(message.group)
        for request, outcome in message.outcomes:
            if self._proposals.settle(request):
                self._on_outcome(request, outcome)
        if self._take_jobs(message):
            self._take_life(message)
        else:
            self._begin(now_ms)

    def _take_jobs(self, feed: Feed) -> bool:
        """False if something is not as the feeder should know it."""
        if feed.whole:
            self._told = set()
        for fed in feed.jobs:
            if not self._take_job(fed):
                return False
        named = {fed.job: None for fed in feed.jobs}
        if self._told is not None:
            self._told.update(named)
            if not feed.more:
                for job in [job for job in self.machine.jobs if job not in self._told]:
                    self._drop(job)
                    named[job] = None
                named.update((job, None) for job, _ in self.owner.held())
                self._told = None
        self._out += catch_up(self.owner, self.machine, self._info, named=named)
        return True

    def _take_job(self, fed: FedJob) -> bool:
        if fed.ended:
            self._drop(fed.job)
            return True
        job = self.machine.jobs.get(fed.job)
        if job is None:
            if fed.spec is None:
                return False
            job = self.machine.jobs[fed.job] = _followed(fed.job, fed.spec)
            self.machine.running[fed.job] = None
        assert isinstance(job, FollowedJob)
        job.parts = tuple(part for held in fed.grants for part in held.parts)
        job.grants = {
            held.grant: HeldGrant(
                held.grant,
                self._info.peer,
                held.incarnation,
                TaskSet.union([tasks for _, tasks in held.parts]),
                0,
            )
            for held in fed.grants
        }
        return True

    def _drop(self, job: JobId) -> None:
        self.machine.jobs.pop(job, None)
        self.machine.running.pop(job, None)
        self.owner.on_job_ended(job)

    def _take_life(self, feed: Feed) -> None:
        self._known, self.is_short = feed.incarnation, feed.short
        self.machine.peers[self._info.peer].drain = feed.drain
        is_down = feed.incarnation == self._info.incarnation and not feed.live
        if is_down and not self._arrivals:  # whose outcome would say so
            self._renew()

    def _take_group(self, group: Membership) -> None:
        if not group.voters:  # of a peer that has just started and knows nobody yet
            return
        self.group = group
        me = self._info.peer
        rows = {me: self.machine.peers.get(me) or PeerRow(self._info)}
        for member in members_of(group):
            info = PeerInfo(member.peer, 0, member.name, member.address, 0, 0, "", "")
            rows[member.peer] = PeerRow(info)
        self.machine.peers = rows

    # --- rounds ---

    def _on_round(self, now_ms: int) -> None:
        if self._farewell is not None:
            self._say_farewell(now_ms)
        commands: list[Complete | GiveBack] = [*self.owner.next_round()]
        is_drained = is_draining(self.machine, self._info.peer)
        if is_drained:
            commands += self.owner.give_back()
        for command in commands:
            self.owner.proposed(self._propose(command, now_ms), command)
        if not (self._leaving or is_drained):
            self._out += self.owner.start_batches()
        if self._append and self.feeder is not None:
            self._out.append(Say(self.feeder, Forward(tuple(self._append))))
        self._append.clear()

    # --- what others may look at ---

    def ledger_ms(self, now_ms: int) -> int:
        """Ledger time as this peer reckons it."""
        return self._stamp[0] + now_ms - self._stamp[1]

    @property
    def info(self) -> PeerInfo:
        return self._info

    @property
    def is_known(self) -> bool:
        """The ledger knows this life of ours."""
        return self._known >= self._info.incarnation

    @property
    def told(self) -> tuple[int, int]:
        """Rises with each message of a feeder that counts."""
        return self._number, self._turn

    @property
    def is_fed(self) -> bool:
        return self._turn > 0

    @property
    def is_removed(self) -> bool:
        return self._info.peer in self.group.removed

    @property
    def is_wanted(self) -> bool:
        """Too few hold the whole ledger: one more could."""
        return len(members_of(self.group)) < holders_wanted(self.group)

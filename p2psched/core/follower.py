"""What a peer decides that holds no ledger: it runs what it owns and follows a feed (ADR 0034).

Its part of the state is what its feeder says that it owns, as of one ledger index after another.
`Owner` works on that part as it does on all of it; proposals go to the feeder and are repeated
until the feed brings their outcome. It refuses what is older than what it has seen, from whomever
it comes, and what leaves a gap: then it asks anew, for all of its part.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Final

from p2psched.core.catch_up import catch_up
from p2psched.core.departing import Own
from p2psched.core.drain import is_cordoned, is_draining
from p2psched.core.feed import Say, holders_wanted, members_of
from p2psched.core.followed import FollowedJob, followed, ranked, settle, take_life
from p2psched.core.follower_events import FollowerEffect, FollowerEvent, Lost, Passed, Told
from p2psched.core.levels import check_known
from p2psched.core.life import Life
from p2psched.core.owner import Owner
from p2psched.core.proposals import Proposals
from p2psched.core.scheduler_events import (
    Asked,
    Began,
    Copied,
    Executed,
    GaveUp,
    Leaving,
    Renewed,
    Round,
    Watched,
)
from p2psched.core.separation import MAX_DISCONNECT_MS, Separation
from p2psched.core.separation_effects import Recalled, Spooled
from p2psched.core.state import LedgerState, PeerRow
from p2psched.core.stealing import Stealing
from p2psched.core.thief import Busy, by_gossip
from p2psched.core.watching import Watching
from p2psched.model.commands import Outcome, PeerInfo
from p2psched.model.feed_messages import FedJob, Feed, FeedElsewhere, Follow
from p2psched.model.ids import JobId, PeerId
from p2psched.model.load import Seen
from p2psched.model.messages import Forward
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.raft import Membership
from p2psched.model.stalls import STALL_MS
from p2psched.model.steal_messages import StealMessage

BEAT_MS: Final = 400  # between two words to the feeder, which answers each
FEED_PATIENCE_MS: Final = 1_500  # a feeder that says nothing for so long is left
FIRST_PATIENCE_MS: Final = 500  # then another one is asked, too
SEEK_PAUSE_MS: Final = 100  # when none was of use: most likely nobody leads
_NUMBERS_PER_INCARNATION: Final = 1 << 20


class Follower:
    """`info.incarnation` must be new for this start of the process; `group` holds the ledger."""

    def __init__(
        self,
        info: PeerInfo,
        group: Membership,
        leader: PeerId | None,
        offers: Offers = NOTHING,
        *,
        max_disconnect_ms: int = MAX_DISCONNECT_MS,
        stall_ms: int = STALL_MS,
    ) -> None:
        self.machine = LedgerState()  # only this peer's part, and who holds the whole ledger
        self.owner = Owner(self.machine, slots=info.slots, offers=offers)
        rng = random.Random(f"{info.peer} {info.incarnation}")
        self.stealing = Stealing(self.machine, self.owner, rng, offers)
        self._parted: list[tuple[int, Outcome]] = []  # see `_part`
        self._proposals = Proposals(info.peer, info.incarnation)
        self._life = Life(info, self._proposals, self.owner, offers)
        self.separation = Separation(self.owner, self.machine, self._life, max_disconnect_ms)
        self.watching = Watching(self.machine, self.owner, self._life, patience_ms=stall_ms)
        self.pulls = False  # tasks wait that somebody has to ask the leader for
        self.shut: frozenset[PeerId] = frozenset()  # in quarantine, as its feeder sees it
        self.is_short = False  # as its feeder sees it: too few who hold the ledger are up
        self._known = 0  # the newest incarnation of ours that the ledger knows
        self.group = Membership()
        self.leader = leader
        self.feeder: PeerId | None = None
        self.cursor = 0
        self._tried: dict[PeerId, None] = {}  # feeders that were of no use, since one was
        self._mute: dict[PeerId, None] = {}  # those that said nothing when they were asked last
        self._asked: dict[PeerId, int] = {}  # since one fed us: number of the question
        self._number = info.incarnation * _NUMBERS_PER_INCARNATION
        self._last_number = self._number
        self._turn = 0
        self._told: set[JobId] | None = None  # while all is told anew: what was
        self._heard_ms = 0
        self._beat_ms = 0
        self._stamp = (0, 0)
        self.seen: Mapping[PeerId, Seen] = {}  # as gossip had it when time last went on: advice
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
                self.stealing.on_executed(now_ms, executed)
            case Copied(number=number, blobs=blobs):
                self.owner.on_copied(number, blobs)
            case Passed(seen=seen):
                me = self._life.info
                self.seen = seen
                self.stealing.on_seen(len(seen) + 1, seen.get(me.peer), me.slots)
                self._on_passed(now_ms)
            case Lost(peer=peer):
                if peer == self.feeder:
                    self._give_up(now_ms)
            case Recalled() | Spooled():
                self._out += self.separation.on_event(event)
            case _:
                self._on_caller(event)
        out, self._out = self._out, []
        return out

    # --- callers and lives ---

    def _on_caller(self, event: Began | Asked | GaveUp | Renewed | Leaving | Watched) -> None:
        now_ms = event.now_ms
        match event:
            case Began():
                self.cursor = self.separation.on_begin(now_ms)
                self._seek(now_ms)
            case Asked(tag=tag, command=command):
                self._out += self._life.ask(tag, command, now_ms, self._proposals.busy)
            case GaveUp(tag=tag):
                self._life.give_up(tag)
            case Renewed(incarnation=incarnation):
                self._life.renewed(incarnation, now_ms)
            case Leaving(tag=tag):
                self._life.leave(tag)
            case Watched():
                self._out += self.watching.on_watched(event)

    def _on_outcome(self, request: int, outcome: Outcome) -> None:
        settle(self.machine, self.owner.proposed_as(request), outcome)
        if not self.owner.on_outcome(request, outcome):
            self._out += self._life.on_outcome(request, outcome)

    # --- whom to follow ---

    def feeders(self) -> list[PeerId]:
        """Who may feed this peer, best first."""
        return ranked(self.group, self._life.info.peer, leader=self.leader, mute=self._mute)

    def _seek(self, now_ms: int) -> None:
        """Follow somebody else, if there is anybody else; soon, if none was of use."""
        if self.feeder is not None:
            self._tried[self.feeder] = None
        self.feeder = next((peer for peer in self.feeders() if peer not in self._tried), None)
        self._begin(now_ms)

    def _give_up(self, now_ms: int) -> None:
        """The feeder says nothing."""
        if self.feeder is not None:
            self._mute[self.feeder] = None
        self._seek(now_ms)

    def _begin(self, now_ms: int) -> None:
        """Ask for all of our part."""
        self._number = self._last_number = self._last_number + 1
        self._turn = 0
        self._told = None
        self._heard_ms = now_ms
        self._say(now_ms, tuple(self.machine.jobs))

    def _say(self, now_ms: int, jobs: tuple[JobId, ...] = ()) -> None:
        self._beat_ms = now_ms
        if self.feeder is not None:
            self._asked[self.feeder] = self._number
            follow = Follow(self._number, self._turn, self.cursor, jobs)
            self._out.append(Say(self.feeder, follow))

    def _on_passed(self, now_ms: int) -> None:
        self._life.repeat(now_ms)
        is_led = self.is_fed and self.leader is not None
        self._out += self.separation.on_clock(now_ms, led=is_led, up=self.is_known)
        if self.is_known:
            self._life.offer(now_ms, level=self.machine.level, known=self._life.offered)
        if self.feeder is None:
            if now_ms - self._heard_ms >= SEEK_PAUSE_MS:
                self._tried.clear()
                self._seek(now_ms)
        elif now_ms - self._heard_ms >= (FEED_PATIENCE_MS if self._turn else FIRST_PATIENCE_MS):
            self._give_up(now_ms)
        elif now_ms - self._beat_ms >= BEAT_MS:
            if self._turn:
                self._say(now_ms)
            else:  # the first word may be lost
                self._say(now_ms, tuple(self.machine.jobs))

    # --- the feed ---

    def _on_told(
        self, now_ms: int, sender: PeerId, message: Feed | FeedElsewhere | StealMessage
    ) -> None:
        if isinstance(message, StealMessage):
            self.stealing.on_message(now_ms, sender, message)
        elif not self._is_answer(sender, message):
            return
        elif isinstance(message, FeedElsewhere):
            self.leader = message.leader
            self._take_group(message.group)
            self._seek(now_ms)
        else:
            self._on_fed(now_ms, sender, message)

    def _on_fed(self, now_ms: int, sender: PeerId, message: Feed) -> None:
        if message.turn <= self._turn:
            return  # a second time
        if message.turn != self._turn + 1 or message.index < self.cursor:
            self._begin(now_ms)
            return
        if message.turn == 1:
            self._tried.clear()
            self._asked = {sender: self._number}
            self._life.repeat(now_ms, all_of_them=True)
        self._turn, self.cursor, self._heard_ms = message.turn, message.index, now_ms
        self._stamp = (message.stamp_ms, now_ms)
        self.leader, self.pulls = message.leader, message.pulls
        if message.group is not None:
            self._take_group(message.group)
        self._settle(message)
        if self._take_jobs(message):
            self._take_life(message)
            if not message.more:
                self._part(now_ms)
        else:
            self._begin(now_ms)

    def _settle(self, feed: Feed) -> None:
        for request, outcome in feed.outcomes:
            if not self._proposals.settle(request):
                continue
            if self.owner.awaits_state(request):
                self._parted.append((request, outcome))
            else:
                self._on_outcome(request, outcome)

    def _part(self, now_ms: int) -> None:
        """What was to go elsewhere and is ours still, as far as we are told, may be started: not
        before all is told that there is as of this index."""
        parted, self._parted = self._parted, []
        for request, outcome in parted:
            self._on_outcome(request, outcome)
        if self.owner.has_queue:
            self.stealing.on_granted(now_ms)

    def _is_answer(self, sender: PeerId, message: Feed | FeedElsewhere) -> bool:
        """From the feeder, or from one that was asked before and took its time: the first of them
        that feeds us is followed."""
        if message.number != self._asked.get(sender):
            return False
        self._mute.pop(sender, None)
        if sender != self.feeder and isinstance(message, Feed) and not self._turn:
            self.feeder, self._number = sender, message.number
        return sender == self.feeder

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
        self._out += catch_up(self.owner, self.machine, self._life.info, named=named)
        return True

    def _take_job(self, fed: FedJob) -> bool:
        if fed.ended:
            self._drop(fed.job)
            return True
        job = self.machine.jobs.get(fed.job)
        if job is None:
            if fed.spec is None:
                return False
            job = self.machine.jobs[fed.job] = followed(fed.job, fed.spec)
            self.machine.running[fed.job] = None
        assert isinstance(job, FollowedJob)
        job.take(fed, self._life.info.peer)
        return True

    def _drop(self, job: JobId) -> None:
        self.machine.jobs.pop(job, None)
        self.machine.running.pop(job, None)
        self.owner.on_job_ended(job)

    def _take_life(self, feed: Feed) -> None:
        # Or the ledger would refuse one incarnation after another, as fast as it can.
        check_known(feed.level, self._life.info.level)
        self._known, self.is_short = feed.incarnation, feed.short
        self.shut = frozenset(feed.shut)
        self.machine.level = feed.level
        take_life(self.machine.peers[self._life.info.peer], self._life.info, feed)
        is_down = feed.incarnation == self._life.info.incarnation and not feed.live
        if is_down and not self._life.arrives:
            self._out += self._life.renew()

    def _take_group(self, group: Membership) -> None:
        if not group.voters:  # of a peer that has just started and knows nobody yet
            return
        self.group = group
        me = self._life.info.peer
        rows = {me: self.machine.peers.get(me) or PeerRow(self._life.info)}
        for member in members_of(group):
            info = PeerInfo(member.peer, 0, member.name, member.address, 0, 0, "", "")
            rows[member.peer] = PeerRow(info)
        self.machine.peers = rows

    # --- rounds ---

    def _on_round(self, now_ms: int) -> None:
        self._out += self._life.say_farewell(
            now_ms, known=self._known, refusal=self._proposals.busy
        )
        commands: list[Own] = [*self.owner.next_round()]
        commands += self.watching.give_back()
        if is_draining(self.machine, self._life.info.peer):
            commands += self.owner.give_back()
        starts_nothing = bool(self.watching.shut)
        is_cut = self.separation.is_cut
        is_shut = starts_nothing or is_cut
        self._out += self.owner.pacing.say_lagging(self.leader)
        me = self._life.info
        moves, answers = self.stealing.give(me, gives_nothing=is_shut, shunned=self.shut)
        commands += moves
        for command in commands:
            self.owner.proposed(self._life.propose(command, now_ms), command)
        self._out += self.owner.next_batches(now_ms, starts_nothing=starts_nothing, is_cut=is_cut)
        self._out += self.owner.begin_and_hold(partial(self._life.propose, now_ms=now_ms), now_ms)
        if self._life.append and self.feeder is not None:
            self._out.append(Say(self.feeder, Forward(tuple(self._life.append))))
        self._life.append.clear()
        self._out += [*self.separation.on_round(now_ms), *answers]
        if self.stealing.is_idle(now_ms):
            is_open = self.is_known and not is_cordoned(self.machine, me.peer)
            takes = not is_shut and is_open and self.is_fed and me.peer not in self.shut
            if takes and self.pulls and self.leader is not None:
                self._out += self.stealing.ask(now_ms, me, [Busy(self.leader, 0)])
            else:
                victims = partial(by_gossip, me.peer, self.seen)
                self._out += self.stealing.look(now_ms, me, victims, takes=takes)

    # --- what others may look at ---

    def ledger_ms(self, now_ms: int) -> int:
        """Ledger time as this peer reckons it."""
        return self._stamp[0] + now_ms - self._stamp[1]

    @property
    def info(self) -> PeerInfo:
        return self._life.info

    @property
    def is_known(self) -> bool:
        """The ledger knows this life of ours."""
        return self._known >= self._life.info.incarnation

    @property
    def told(self) -> tuple[int, int]:
        """Rises with each message of a feeder that counts."""
        return self._number, self._turn

    @property
    def is_fed(self) -> bool:
        return self._turn > 0

    @property
    def is_removed(self) -> bool:
        return self._life.info.peer in self.group.removed

    @property
    def is_wanted(self) -> bool:
        """Too few hold the whole ledger: one more could."""
        return len(members_of(self.group)) < holders_wanted(self.group)

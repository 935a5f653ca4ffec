"""Everything that a peer decides above the ledger: one machine made of replica, coordinator, owner.

It takes what the ledger committed, what the executor reports, and what callers propose; it says
what to append, to run, to stop, to store and to answer. The driver calls `Round` at the end of
each turn in which something happened: what piled up in the turn leaves as one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial

from p2psched.core.admission import Door
from p2psched.core.catch_up import catch_up
from p2psched.core.coordinator import DETECTION_WINDOW_MS, Coordinator
from p2psched.core.deciding import Deciding
from p2psched.core.decisions import Decisions
from p2psched.core.departing import Own
from p2psched.core.drain import draining, is_cordoned, is_draining
from p2psched.core.feed import Say
from p2psched.core.feeding import Feeding
from p2psched.core.life import Life
from p2psched.core.machine import Machine
from p2psched.core.owner import Owner, TakeBack
from p2psched.core.peering import to_forget
from p2psched.core.policies.base import Policy
from p2psched.core.policies.registry import POLICIES
from p2psched.core.replica import Replica
from p2psched.core.resting import Resting
from p2psched.core.retention import KEEP_BYTES, KEEP_MS, Retention
from p2psched.core.retry_budget import SHARE_PERCENT
from p2psched.core.scheduler_events import (
    Answered,
    AppendToLedger,
    Applied,
    Asked,
    Began,
    Clocked,
    CoordinatorChanged,
    Copied,
    Executed,
    Followed,
    GaveUp,
    Leaving,
    Renewed,
    RenewIncarnation,
    Restored,
    Round,
    SchedulerEffect,
    SchedulerEvent,
    Store,
    Watched,
    YieldLead,
)
from p2psched.core.separation import MAX_DISCONNECT_MS, Separation
from p2psched.core.separation_effects import Recalled, Spooled
from p2psched.core.snapshot import restore_machine
from p2psched.core.stealing import Stealing
from p2psched.core.thief import Busy, by_rows
from p2psched.core.watching import Watching
from p2psched.model.aside import Aside
from p2psched.model.backing import Lagging
from p2psched.model.commands import (
    Envelope,
    Granted,
    JobEnded,
    JobForgotten,
    Outcome,
    PeerInfo,
    PeerWentDown,
    Recorded,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.execution import Committed
from p2psched.model.feed_messages import FeedReport, FeedReported, Follow
from p2psched.model.ids import PeerId
from p2psched.model.load import Seen
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.stalls import STALL_MS, Stalled
from p2psched.model.steal_messages import Gives, Steal, StealMessage

__all__ = [
    "Answered",
    "AppendToLedger",
    "Applied",
    "Asked",
    "Began",
    "Clocked",
    "CoordinatorChanged",
    "Copied",
    "Executed",
    "Followed",
    "GaveUp",
    "Leaving",
    "RenewIncarnation",
    "Renewed",
    "Restored",
    "Round",
    "Scheduler",
    "SchedulerEffect",
    "SchedulerEvent",
    "Store",
    "Watched",
    "YieldLead",
]


class Scheduler:
    """One peer above the ledger. `info.incarnation` must be new for this start of the process."""

    def __init__(
        self,
        info: PeerInfo,
        *,
        window_ms: int = DETECTION_WINDOW_MS,
        keep_ms: int = KEEP_MS,
        keep_bytes: int = KEEP_BYTES,
        offers: Offers = NOTHING,
        policies: Mapping[str, Policy] = POLICIES,
        retry_percent: int = SHARE_PERCENT,
        max_disconnect_ms: int = MAX_DISCONNECT_MS,
        stall_ms: int = STALL_MS,
    ) -> None:
        self.policies, self.machine = policies, Machine(info.level)
        self.retention = Retention(self.machine, keep_ms=keep_ms, keep_bytes=keep_bytes)
        self._replica = Replica(info.peer, info.incarnation, self.machine)
        leads = {"window_ms": window_ms, "retry_percent": retry_percent}
        self._coordinator = Coordinator(info.peer, self.machine, policies=policies, **leads)
        self.feeding, self.door = Feeding(info.peer, self.machine), Door()  # of its callers
        self.owner = Owner(self.machine, slots=info.slots, offers=offers)
        rng = random.Random(f"{info.peer} {info.incarnation}")
        self.stealing = Stealing(self.machine, self.owner, rng, offers)
        self.seen: Mapping[PeerId, Seen] = {}  # as gossip had it when time last went on: advice
        self._out: list[SchedulerEffect] = []
        self._life = Life(info, self._replica, self.owner, offers)
        self._append = self._life.append
        self.separation = Separation(self.owner, self.machine, self._life, max_disconnect_ms)
        self.deciding = Deciding(self._coordinator, self.machine, self._replica, self._life)
        self.watching = Watching(
            *(self.machine, self.owner, self._life), patience_ms=stall_ms, placing=self.deciding
        )
        self._stamp = (0, 0)  # the newest stamp of the ledger, and our time when it came
        rest_of = (self.stealing, self.deciding, self.retention, self.ledger_ms)
        self.resting = Resting(*rest_of, self._append)

    def step(self, event: SchedulerEvent) -> list[SchedulerEffect]:
        """Take one event; perform the effects in order."""
        now_ms = event.now_ms
        self.resting.on_event(event, leaves=self._life.leaving)
        match event:
            case Round():
                self._on_round(now_ms)
            case Applied(batches=batches):
                self._on_applied(batches, now_ms)
            case Executed(event=executed):
                self._out += self.owner.on_executed(executed)
                self.stealing.on_executed(now_ms, executed)
            case Asked(tag=tag, command=command):
                refusal = self._replica.refusal(command)
                self._out += self._life.ask(tag, command, now_ms, refusal)
            case Copied(number=number, blobs=blobs):
                self.owner.on_copied(number, blobs)
            case Clocked(full=full, seen=seen):
                self._coordinator.on_full(full)
                self._coordinator.on_seen(seen)
                self.seen = seen
                me = self._life.info
                self.stealing.on_seen(len(self.machine.peers), seen.get(me.peer), me.slots)
                self._on_clock(event)
            case Followed(sender=sender, message=message):
                self._on_message(now_ms, sender, message)
            case GaveUp(tag=tag):
                self._life.give_up(tag)
            case Recalled() | Spooled():
                self._out += self.separation.on_event(event)
            case _:
                self._on_change(event)
        out, self._out = self._out, []
        return out

    # --- what the coordinator adds to an entry ---

    def decorate(self, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        """First placements ride in the entry of their job (see `LedgerListener.decorate`). If the
        entry is lost, a later round places anew: nobody waits for their outcome."""
        commands = self._coordinator.first_placements(envelopes)
        return (*envelopes, *map(self._replica.number, commands))

    def _on_message(
        self,
        now_ms: int,
        sender: PeerId,
        message: Follow | FeedReport | FeedReported | StealMessage,
    ) -> None:
        if isinstance(message, Steal) and self.coordinates and self.machine.awaits_pull:
            self._coordinator.on_pull(sender)
            self._out.append(Say(sender, Gives(message.number, 1)))
        elif isinstance(message, Lagging):
            self.deciding.on_lagging(now_ms, sender, message)
        elif isinstance(message, StealMessage):
            self.stealing.on_message(now_ms, sender, message)
        else:
            self.feeding.on_message(now_ms, sender, message)

    def _on_change(
        self, event: Began | CoordinatorChanged | Renewed | Leaving | Restored | Watched
    ) -> None:
        now_ms = event.now_ms
        match event:
            case CoordinatorChanged(coordinator=coordinator, is_self=is_self):
                self._coordinator.on_coordinator(now_ms, is_self=is_self)
                self.feeding.on_coordinator(coordinator)
                if is_self:
                    self.retention.begin()
                else:
                    self.retention.end()
                self.deciding.forget()
                if coordinator is not None:
                    self._life.repeat(now_ms, all_of_them=True)
            case Began():
                self.separation.on_begin(now_ms)
            case Renewed(incarnation=incarnation):
                self._life.renewed(incarnation, now_ms)
            case Leaving(tag=tag):
                self._life.leave(tag)
            case Restored(state=state):
                self._on_restored(state, now_ms)
            case Watched():
                self._out += self.watching.on_watched(event)

    def _on_applied(self, batches: tuple[Committed, ...], now_ms: int) -> None:
        for batch in batches:
            brought = self._replica.apply(batch)
            self.feeding.feeder.on_applied(batch, brought.happened.outcomes, brought.events)
            for request, outcome in brought.own:
                self._on_outcome(request, outcome)
            # That tasks succeeded concerns nobody else here, unless there are failures to explain.
            listens = self._coordinator.quarantine.listens
            for stamped in brought.events if listens else brought.changes():
                self._on_event(stamped, now_ms)
            if self._coordinator.coordinates and (self.machine.choosy or self.machine.backed):
                self.deciding.measure(brought.events)
            kept = tuple([e for e in brought.events if not isinstance(e.event, Aside)])
            self._out.append(Store(kept, batch.index, brought.happened))
        self._stamp = (self.machine.stamp_ms, now_ms)

    def _on_restored(self, state: bytes | memoryview, now_ms: int) -> None:
        """Repeats bring what became of our proposals: only work and lives must be brought along."""
        restore_machine(self.machine, state)
        self._coordinator.on_restored()
        self.feeding.feeder.on_restored()
        self._stamp = (self.machine.stamp_ms, now_ms)
        self._out += catch_up(self.owner, self.machine, self._life.info)
        is_down = self.machine.is_down(self.info.peer, self.info.incarnation)
        if is_down and not self._life.arrives:
            self._out += self._life.renew()

    def _on_outcome(self, request: int, outcome: Outcome) -> None:
        self.deciding.on_outcome(request, outcome)
        if not self.owner.on_outcome(request, outcome):
            self._out += self._life.on_outcome(request, outcome)

    def _on_event(self, stamped: Stamped, now_ms: int) -> None:
        event, info = stamped.event, self._life.info
        match event:
            case Granted():
                if event.peer == info.peer and event.incarnation == info.incarnation:
                    self._on_granted(event)
                    self.stealing.on_granted(now_ms)
                else:
                    self.stealing.thief.on_news(now_ms)
            case JobEnded():
                self._coordinator.forget(event.job)
                self.retention.on_event(event)
                self._out += self.owner.on_job_ended(event.job)
            case JobForgotten():
                self.retention.on_event(event)
            case Retried() | Recorded() | Stalled():
                self._coordinator.on_event(event)
            case Revoked(peer=info.peer):
                effects = self.owner.on_revoked(event.job, event.grant, event.tasks, event.cause)
                self._out += effects
            case PeerWentDown(peer=info.peer, incarnation=info.incarnation):
                self._out += self._life.renew()

    def _on_granted(self, event: Granted) -> None:
        """Later commands of the same entry may have taken some away again, or all."""
        if (job := self.machine.jobs.get(event.job)) is not None:
            tasks = job.answerable(event.grant, event.tasks)
            if tasks.ranges:
                self.owner.on_granted(job, event.grant, tasks)

    def _on_clock(self, clocked: Clocked) -> None:
        now_ms, ledger_ms = clocked.now_ms, self.ledger_ms(clocked.now_ms)
        self._life.repeat(now_ms)
        row = self.machine.peers.get(self.info.peer)
        is_up = self.machine.is_live(self.info.peer, self.info.incarnation)
        if row is not None and is_up:
            self._life.offer(now_ms, level=self.machine.level, known=row.offers)
        self.feeding.feeder.shut = self._coordinator.shunned()
        contacts = self.feeding.on_clock(clocked)
        self._coordinator.on_shun(clocked.shun, now_ms, contacts)
        self._coordinator.forgive_full(ledger_ms)
        self.deciding.find_dead(now_ms, contacts)
        led = clocked.is_led if clocked.group is not None else self.feeding.coordinator is not None
        self._out += self.separation.on_clock(now_ms, led=led, up=is_up)
        self._append += map(self._replica.number, self._coordinator.to_elapse(ledger_ms))
        if self._coordinator.must_yield(now_ms):
            self._out.append(YieldLead(draining(self.machine)))
        if self._coordinator.coordinates:
            self._append += map(self._replica.number, to_forget(self.machine, clocked.removed))
            self._append += map(self._replica.number, self._coordinator.to_raise(clocked.removed))

    def _on_round(self, now_ms: int) -> None:
        if not self.resting.only_asks(now_ms):
            self._end_turn(now_ms)
        else:
            self._out += self._life.let_leave()
        if self.stealing.is_idle(now_ms):
            self._out += self._ask_for_work(now_ms)

    def _end_turn(self, now_ms: int) -> None:
        """What this turn's events led to leaves together."""
        self.resting.end()
        if self._life.leaving:
            row, refusal = self.machine.peers.get(self.info.peer), self._replica.busy
            known = row.info.incarnation if row is not None else 0
            self._out += self._life.say_farewell(now_ms, known=known, refusal=refusal)
        commands: list[Own] = [*self.owner.next_round(), *self.watching.give_back()]
        starts_nothing, is_cut = self.starts_nothing, self.separation.is_cut
        if starts_nothing and is_draining(self.machine, self._life.info.peer):
            commands += self.owner.give_back()
        answers: list[Say | TakeBack] = []
        if self.stealing.is_asked:
            is_shut = starts_nothing or is_cut
            shunned, me = self._coordinator.shunned(), self._life.info
            moves, answers = self.stealing.give(me, gives_nothing=is_shut, shunned=shunned)
            commands += moves
        for command in commands:
            self.owner.proposed(self._life.propose(command, now_ms), command)
        self._out += self.deciding.pass_on(now_ms, self.owner, self.feeding.coordinator)
        self.deciding.place(now_ms)
        if self.resting.forgets(now_ms):
            forgets = self.retention.to_forget(self.ledger_ms(now_ms))
            self._append += map(self._replica.number, forgets)
        self._out += self.owner.next_batches(now_ms, starts_nothing=starts_nothing, is_cut=is_cut)
        self._out += self.owner.begin_and_hold(partial(self._life.propose, now_ms=now_ms), now_ms)
        self._out += self._life.let_leave()
        self._out += [*self.separation.on_round(now_ms), *self.feeding.on_round(), *answers]
        self.resting.begin()

    def _ask_for_work(self, now_ms: int) -> list[Say]:
        me, machine = self._life.info, self.machine
        takes = machine.is_live(me.peer, me.incarnation) and not is_cordoned(machine, me.peer)
        takes = takes and not (self.starts_nothing or self.separation.is_cut)
        takes = self.resting.takes = takes and me.peer not in self._coordinator.shunned()
        if takes and self.machine.choosy and self.machine.awaits_pull:
            if self.coordinates:
                self._coordinator.on_pull(me.peer)
                return []
            leader = self.feeding.coordinator
            if leader is not None:
                return self.stealing.ask(now_ms, me, [Busy(leader, 0)])
        victims = partial(by_rows, self.machine, me.peer, self.seen)
        return self.stealing.look(now_ms, me, victims, takes=takes)

    # --- what others may look at ---

    def ledger_ms(self, now_ms: int) -> int:
        """Ledger time as this peer reckons it: the newest stamp and what has passed here since."""
        return self._stamp[0] + now_ms - self._stamp[1]

    @property
    def starts_nothing(self) -> bool:
        """It is about to stop, or drained, or gives back. What has begun goes on."""
        return bool(self.watching.shut)

    def stories(self) -> dict[PeerId, str]:
        """Of peers on which innocent tasks fail, for people."""
        return self._coordinator.stories()

    @property
    def info(self) -> PeerInfo:
        return self._life.info

    @property
    def coordinates(self) -> bool:
        return self._coordinator.coordinates

    @property
    def decisions(self) -> Decisions:
        """Why this peer placed tasks as it did, while it coordinated."""
        return self._coordinator.chooser.decisions

    @property
    def pending_count(self) -> int:
        return self._replica.pending_count

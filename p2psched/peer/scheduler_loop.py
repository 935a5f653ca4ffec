"""Drives the scheduler's core between a ledger, an executor and the result store.

The only place that turns the core's effects into calls; whoever waits for a job, an index or an
outcome waits here. It decides nothing.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from p2psched.core.capture import Capture
from p2psched.core.feed import Say
from p2psched.core.leasing import HoldLease
from p2psched.core.owner import CopyBlobs, StartBatch, StopBatch, TakeBack
from p2psched.core.pacing import EndTask
from p2psched.core.quiet import SELDOM_MS, is_quiet
from p2psched.core.scheduler import (
    Answered,
    AppendToLedger,
    Applied,
    Asked,
    Began,
    Clocked,
    CoordinatorChanged,
    Followed,
    GaveUp,
    Leaving,
    RenewIncarnation,
    Restored,
    Scheduler,
    SchedulerEffect,
    SchedulerEvent,
    Store,
    YieldLead,
)
from p2psched.core.scheduler_events import Noticed, Tend
from p2psched.core.separation import Separation
from p2psched.core.separation_effects import SeparationEffect
from p2psched.model.commands import (
    Command,
    Envelope,
    JobEnded,
    JobForgotten,
    JobReopened,
    Outcome,
    Recorded,
    Stamped,
)
from p2psched.model.errors import Unavailable
from p2psched.model.execution import Committed
from p2psched.model.feed_messages import FeedReport, FeedReported, Follow
from p2psched.model.ids import JobId, PeerId
from p2psched.model.messages import PeerMessage
from p2psched.model.once import Decided, Doubted
from p2psched.model.raft import Membership
from p2psched.model.steal_messages import StealMessage
from p2psched.peer.core_loop import CoreLoop
from p2psched.peer.event_feed import EventFeed
from p2psched.peer.lines import Line
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.wakes import Wakes
from p2psched.ports.clock import Clock
from p2psched.ports.executor import Executor
from p2psched.ports.ledger import Ledger

_CHANGES: Final = (
    Recorded,
    JobEnded,
    JobReopened,
    JobForgotten,
    Doubted,
    Decided,
)  # what those who wait for a job want to hear


Heard = Callable[[Outcome | Unavailable], None]  # must not raise, nor propose


def _nobody(_outcome: Outcome | Unavailable) -> None:
    """Whoever asked has given up."""


class SchedulerLoop(CoreLoop[SchedulerEvent]):
    """Implements `LedgerListener`. `attach` the ledger before anything else."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        clock: Clock,
        executor: Executor,
        results: ResultWriter,
        next_incarnation: Callable[[], int],
        on_bug: Callable[[Exception], None],
    ) -> None:
        super().__init__(
            clock=clock, executor=executor, next_incarnation=next_incarnation, on_bug=on_bug
        )
        self.scheduler = scheduler
        self.events: Final = EventFeed()
        self.wakes: Final = Wakes()
        self.line: Final = Line(scheduler.door, clock)
        self._results = results
        self._copy: Callable[[CopyBlobs], None] | None = None
        self._on_stored: Callable[[Sequence[Stamped]], None] | None = None
        self._send: Callable[[PeerId, PeerMessage], object] = lambda _to, _message: None
        self._group: Callable[[], tuple[Membership | None, bool]] = lambda: (None, False)
        self._ledger: Ledger | None = None
        self._shun: Callable[[], frozenset[PeerId]] = frozenset
        # The newest, as long as somebody takes its pieces.
        self._capture: weakref.ref[Capture] | None = None
        self._waiting: dict[int, Heard] = {}
        self._next_tag = 1
        self.is_quiet = False  # as of the last look at the clock
        self._watchers: dict[JobId, list[Callable[[], None]]] = {}
        self._applied_waiters: list[tuple[int, asyncio.Future[None]]] = []

    def attach(
        self,
        ledger: Ledger,
        *,
        send: Callable[[PeerId, PeerMessage], object],
        shun: Callable[[], frozenset[PeerId]] = frozenset,
    ) -> None:
        """`send` reaches other peers, or drops what is for one that it doesn't reach. `shun`: who
        should get nothing new, as gossip sees it."""
        self._ledger, self._send, self._shun = ledger, send, shun

    def attach_feeding(self, group: Callable[[], tuple[Membership, bool]]) -> None:
        """Who holds the whole ledger, and is led: only then there are followers."""
        self._group = group

    def attach_blobs(
        self,
        *,
        copy: Callable[[CopyBlobs], None],
        on_stored: Callable[[Sequence[Stamped]], None],
    ) -> None:
        """Who copies large results (and says `on_copied`), and who hears of all events."""
        self._copy, self._on_stored = copy, on_stored

    @property
    def separation(self) -> Separation:
        return self.scheduler.separation

    async def run(self) -> None:
        """Tell the ledger that we are here, then keep time until cancelled."""
        self._step(Began(self._clock.now_ms()))
        while True:
            await self._pauses.wait(SELDOM_MS / 1000 if self.is_quiet else None)
            now_ms = self._clock.now_ms()
            heard = {peer: now_ms - age for peer, age in self.ledger.contacts().items()}
            removed = self.ledger.removed()
            full, group = self.ledger.full(), self._group()
            seen, shun = self.look(), self._shun()
            self._step(Clocked(now_ms, heard, full, *group, removed, seen, shun))
            self._watch(self.scheduler.watching.watchdog)
            self.is_quiet = is_quiet(self.scheduler, now_ms, heard, shuns=bool(shun))

    def stop(self) -> None:
        super().stop()
        waiting, self._waiting = self._waiting, {}
        for heard in waiting.values():
            heard(Unavailable("this peer is stopping"))

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None, "attach a ledger first"
        return self._ledger

    # --- for callers ------------------------------------------------------------------------------

    async def propose(self, command: Command) -> Outcome:
        """Put a command into the ledger and wait for its outcome; the caller owns the deadline.
        Cancelled, the command may commit all the same."""
        return await self._ask(lambda now_ms, tag: Asked(now_ms, tag, command))

    async def leave(self) -> None:
        """Give everything back before a clean stop; the caller owns the deadline."""
        await self._ask(Leaving)

    def propose_nowait(self, command: Command, heard: Heard) -> int:
        """As `propose`, for who needs no task. `heard` may be called before this returns. What it
        returns is for `give_up`."""
        return self._begin(lambda now_ms, tag: Asked(now_ms, tag, command), heard)

    def note(self, command: Command) -> None:
        """As `propose`; nobody hears what became of it."""
        self.propose_nowait(command, _nobody)

    def give_up(self, tag: int) -> None:
        """Nobody waits for this outcome any more; the command may commit all the same."""
        if self._waiting.pop(tag, None) is not None:
            self._step(GaveUp(self._clock.now_ms(), tag))

    def _begin(self, make: Callable[[int, int], SchedulerEvent], heard: Heard) -> int:
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._waiting[tag] = heard
        self._step(make(self._clock.now_ms(), tag))
        return tag

    async def _ask(self, make: Callable[[int, int], SchedulerEvent]) -> Outcome:
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def heard(outcome: Outcome | Unavailable) -> None:
            if future.done():
                return
            if isinstance(outcome, Unavailable):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        tag = self._begin(make, heard)
        try:
            return await future
        finally:
            self.give_up(tag)

    async def wait_linearizable(self) -> None:
        """Until everything that was committed before this call is applied here. Raises Unavailable
        without a quorum."""
        asked: asyncio.Future[int | None] = self._loop.create_future()

        def done(index: int | None) -> None:
            if not asked.done():
                asked.set_result(index)

        self.ledger.read_index(done)
        index = await asked
        if index is None:
            raise Unavailable(
                "no leader has the confirmation of a majority just now", retry_after_s=0.3
            )
        if self.scheduler.machine.applied_index < index:
            applied: asyncio.Future[None] = self._loop.create_future()
            self._applied_waiters.append((index, applied))
            await applied

    async def wait_job_change(self, job: JobId) -> None:
        """Until a result of the job is committed or the job ends; the caller owns the deadline."""
        future: asyncio.Future[None] = self._loop.create_future()

        def changed() -> None:
            if not future.done():
                future.set_result(None)

        self.watch(job, changed)
        try:
            await future
        finally:
            self.unwatch(job, changed)

    def watch(self, job: JobId, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a result of the job was stored or the job has ended."""
        self._watchers.setdefault(job, []).append(changed)

    def unwatch(self, job: JobId, changed: Callable[[], None]) -> None:
        left = [other for other in self._watchers.get(job, ()) if other != changed]
        if left:
            self._watchers[job] = left
        else:
            self._watchers.pop(job, None)

    # --- LedgerListener ---------------------------------------------------------------------------

    def on_committed(self, batches: Sequence[Committed]) -> None:
        if self._capture is not None and (capture := self._capture()) is not None:
            capture.before(batches)
        self._step(Applied(self._clock.now_ms(), tuple(batches)))
        if self.scheduler.owner.has_queue:
            self._on_round()  # a worker may wait, and the next turn is all that others sent away
        self._wake_appliers()

    def on_restored(self, state: bytes | memoryview) -> None:
        """Whoever waits for something may have missed it, and looks again."""
        self._step(Restored(self._clock.now_ms(), state))
        self._results.on_restored(self.scheduler.machine)
        self.events.restart(self.scheduler.machine.applied_index)
        self.wakes.on_restored()
        self._wake(set(self._watchers))
        self._wake_appliers()

    def capture_state(self, index: int) -> Iterator[bytes] | None:
        # After a bug the last entry may be half applied.
        if self._stopped or self.scheduler.machine.applied_index != index:
            return None
        capture = Capture(self.scheduler.machine)
        self._capture = weakref.ref(capture)
        return capture.pieces()

    def _wake_appliers(self) -> None:
        index = self.scheduler.machine.applied_index
        for waited, future in self._applied_waiters:
            if waited <= index and not future.done():
                future.set_result(None)
        self._applied_waiters = [
            (waited, future) for waited, future in self._applied_waiters if not future.done()
        ]

    def on_coordinator(self, coordinator: PeerId | None, *, is_self: bool) -> None:
        self._step(CoordinatorChanged(self._clock.now_ms(), coordinator, is_self))

    def decorate(self, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        return self.scheduler.decorate(envelopes)

    def on_followed(
        self, sender: PeerId, message: Follow | FeedReport | FeedReported | StealMessage
    ) -> None:
        self._step(Followed(self._clock.now_ms(), sender, message))

    # --- the core ---------------------------------------------------------------------------------

    def _take(self, event: SchedulerEvent) -> None:
        self._perform(self.scheduler.step(event))

    def _perform(self, effects: list[SchedulerEffect]) -> None:
        for effect in effects:
            match effect:
                case Answered(tag=tag, outcome=outcome):  # most are such
                    self._waiting.pop(tag, _nobody)(outcome)
                case AppendToLedger(envelopes=envelopes):
                    self.ledger.append(envelopes)
                case StartBatch() | StopBatch() | EndTask() | HoldLease() | TakeBack():
                    self._execute(effect)
                case CopyBlobs():
                    assert self._copy is not None, "a job with large results needs blobs"
                    self._copy(effect)
                case Store():
                    self._store(effect)
                case Tend() | Noticed():
                    self._attend(effect)
                case _:
                    self._change(effect)

    def _change(self, effect: RenewIncarnation | YieldLead | Say | SeparationEffect) -> None:
        match effect:
            case RenewIncarnation():
                self._renew()
            case YieldLead(avoid=avoid):
                # Not from inside what the ledger calls.
                self._loop.call_soon(self.ledger.yield_lead, avoid)
            case Say(to=to, message=message):
                self._send(to, message)
            case _:
                self.keep(effect)

    def _store(self, effect: Store) -> None:
        self._results.store(effect.events, effect.applied_index)
        self.events.note(effect.happened)
        self.wakes.on_events(effect.happened.events)
        if self._on_stored is not None:
            self._on_stored(effect.events)
        self._wake({e.event.job for e in effect.events if isinstance(e.event, _CHANGES)})

    def _wake(self, jobs: set[JobId]) -> None:
        for job in jobs:
            for changed in tuple(self._watchers.get(job, ())):
                changed()

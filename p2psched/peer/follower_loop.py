"""Drives the core of a follower between its links and its executor. It decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from p2psched.core.feed import Say
from p2psched.core.follower import Follower
from p2psched.core.follower_events import FollowerEffect, FollowerEvent, Lost, Passed, Told
from p2psched.core.leasing import HoldLease
from p2psched.core.owner import CopyBlobs, StartBatch, StopBatch, TakeBack
from p2psched.core.pacing import EndTask
from p2psched.core.scheduler_events import (
    Answered,
    AppendToLedger,
    Asked,
    Began,
    Leaving,
    Noticed,
    RenewIncarnation,
    Store,
    Tend,
    YieldLead,
)
from p2psched.core.separation import Separation
from p2psched.core.separation_effects import KeepOwned, KeepResults, Reported, SpoolDecided
from p2psched.model.commands import Command, Outcome
from p2psched.model.feed_messages import Feed, FeedElsewhere
from p2psched.model.ids import PeerId
from p2psched.model.messages import PeerMessage
from p2psched.model.steal_messages import StealMessage
from p2psched.observe.beat import until_beat
from p2psched.peer.core_loop import CLOCK_PERIOD_S, CoreLoop
from p2psched.ports.clock import Clock
from p2psched.ports.executor import Executor

_FAREWELL_TAG: Final = 1
_NOTE_TAG: Final = 2


class FollowerLoop(CoreLoop[FollowerEvent]):
    def __init__(
        self,
        follower: Follower,
        *,
        clock: Clock,
        executor: Executor,
        send: Callable[[PeerId, PeerMessage], object],
        next_incarnation: Callable[[], int],
        on_bug: Callable[[Exception], None],
    ) -> None:
        super().__init__(
            clock=clock, executor=executor, next_incarnation=next_incarnation, on_bug=on_bug
        )
        self.follower = follower
        self.copy: Callable[[CopyBlobs], None] | None = None
        self._send = send
        self._left: asyncio.Future[Outcome] = self._loop.create_future()
        self._changed = asyncio.Event()  # something was told

    @property
    def separation(self) -> Separation:
        return self.follower.separation

    async def run(self) -> None:
        """Tell the ledger that we are here, then keep time until cancelled."""
        self._step(Began(self._clock.now_ms()))
        while True:
            await asyncio.sleep(until_beat(CLOCK_PERIOD_S))
            self._step(Passed(self._clock.now_ms(), self.look()))
            self._watch(self.follower.watching.watchdog)

    async def leave(self) -> None:
        """Give everything back before a clean stop; the caller owns the deadline."""
        self._step(Leaving(self._clock.now_ms(), _FAREWELL_TAG))
        await self._left

    def note(self, command: Command) -> None:
        """Have it put into the ledger; nobody hears what became of it."""
        self._step(Asked(self._clock.now_ms(), _NOTE_TAG, command))

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Until it holds; looked at whenever something was told. The caller owns the deadline."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def wait_told(self) -> None:
        """Until this peer was told more than it has been so far."""
        before = self.follower.told
        await self.wait(lambda: self.follower.told != before)

    # --- what comes in ---

    def on_told(self, sender: PeerId, message: Feed | FeedElsewhere | StealMessage) -> None:
        self._step(Told(self._clock.now_ms(), sender, message))
        self._changed.set()

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer broke."""
        self._step(Lost(self._clock.now_ms(), peer))

    # --- the core ---

    def _take(self, event: FollowerEvent) -> None:
        self._perform(self.follower.step(event))

    def _perform(self, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Say(to=to, message=message):
                    self._send(to, message)
                case StartBatch() | StopBatch() | EndTask() | HoldLease() | TakeBack():
                    self._execute(effect)
                case CopyBlobs():
                    assert self.copy is not None, "a job with large results needs blobs"
                    self.copy(effect)
                case Answered(tag=tag, outcome=outcome):
                    if tag == _FAREWELL_TAG and not self._left.done():
                        self._left.set_result(outcome)
                case KeepOwned() | KeepResults() | SpoolDecided() | Reported():
                    self.keep(effect)
                case _:
                    self._change(effect)

    def _change(
        self, effect: RenewIncarnation | Tend | Noticed | YieldLead | AppendToLedger | Store
    ) -> None:
        match effect:
            case RenewIncarnation():
                self._renew()
            case Tend() | Noticed():
                self._attend(effect)
            case YieldLead() | AppendToLedger() | Store():
                raise AssertionError("a follower has no ledger and keeps no results")

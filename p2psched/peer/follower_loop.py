"""Drives the core of a follower between its links and its executor. It decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from p2psched.core.feed import Say
from p2psched.core.follower import Follower
from p2psched.core.follower_events import FollowerEffect, FollowerEvent, Lost, Passed, Told
from p2psched.core.owner import CopyBlobs, StartBatch, StopBatch
from p2psched.core.scheduler_events import (
    Answered,
    AppendToLedger,
    Began,
    Copied,
    Executed,
    Leaving,
    Renewed,
    RenewIncarnation,
    Round,
    Store,
)
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Outcome
from p2psched.model.errors import NoSpace
from p2psched.model.execution import ExecutorEvent
from p2psched.model.feed_messages import Feed, FeedElsewhere
from p2psched.model.ids import PeerId
from p2psched.model.messages import PeerMessage
from p2psched.ports.clock import Clock
from p2psched.ports.executor import Executor

CLOCK_PERIOD_S: Final = 0.1
RENEW_RETRY_S: Final = 0.5
_FAREWELL_TAG: Final = 1


class FollowerLoop:
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
        self.follower = follower
        self.copy: Callable[[CopyBlobs], None] | None = None
        self._clock = clock
        self._executor = executor
        self._send = send
        self._next_incarnation = next_incarnation
        self._on_bug = on_bug
        self._loop = asyncio.get_running_loop()
        self._round: asyncio.Handle | None = None
        self._left: asyncio.Future[Outcome] = self._loop.create_future()
        self._changed = asyncio.Event()  # something was told
        self._stopped = False

    async def run(self) -> None:
        """Tell the ledger that we are here, then keep time until cancelled."""
        self._step(Began(self._clock.now_ms()))
        while True:
            await asyncio.sleep(CLOCK_PERIOD_S)
            self._step(Passed(self._clock.now_ms()))

    def stop(self) -> None:
        self._stopped = True

    async def leave(self) -> None:
        """Give everything back before a clean stop; the caller owns the deadline."""
        self._step(Leaving(self._clock.now_ms(), _FAREWELL_TAG))
        await self._left

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

    def on_told(self, sender: PeerId, message: Feed | FeedElsewhere) -> None:
        self._step(Told(self._clock.now_ms(), sender, message))
        self._changed.set()

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer broke."""
        self._step(Lost(self._clock.now_ms(), peer))

    def on_executed(self, event: ExecutorEvent) -> None:
        self._step(Executed(self._clock.now_ms(), event))

    def on_copied(self, number: int, blobs: tuple[ResultBlob, ...]) -> None:
        self._step(Copied(self._clock.now_ms(), number, blobs))

    # --- the core ---

    def _step(self, event: FollowerEvent) -> None:
        if self._stopped:
            return
        try:
            self._perform(self.follower.step(event))
        except Exception as error:  # noqa: BLE001 (whatever it is, this peer must not go on)
            self.stop()
            self._on_bug(error)
            return
        if self._round is None and not isinstance(event, Round):
            self._round = self._loop.call_soon(self._on_round)

    def _on_round(self) -> None:
        self._round = None
        self._step(Round(self._clock.now_ms()))

    def _perform(self, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Say(to=to, message=message):
                    self._send(to, message)
                case StartBatch(batch=batch):
                    self._executor.start(batch)
                case StopBatch(batch=number, cause=cause):
                    self._executor.stop(number, cause)
                case CopyBlobs():
                    assert self.copy is not None, "a job with large results needs blobs"
                    self.copy(effect)
                case Answered(outcome=outcome):
                    if not self._left.done():
                        self._left.set_result(outcome)
                case RenewIncarnation():
                    self._renew()
                case AppendToLedger() | Store():
                    raise AssertionError("a follower has no ledger and keeps no results")

    def _renew(self) -> None:
        """As `SchedulerLoop`."""
        try:
            number = self._next_incarnation()
        except NoSpace:
            self._loop.call_later(RENEW_RETRY_S, self._renew)
        else:
            self._loop.call_soon(self._step, Renewed(self._clock.now_ms(), number))

"""How a pure core is driven: one step for each event, and one round for each turn of the event loop
in which there was one. The loops of a scheduler and of a follower are such.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from p2psched.core.leasing import HoldLease
from p2psched.core.owner import StartBatch, StopBatch, TakeBack
from p2psched.core.pacing import EndTask
from p2psched.core.scheduler_events import (
    Copied,
    Executed,
    Noticed,
    Renewed,
    Round,
    Tend,
    Watched,
)
from p2psched.core.separation_effects import SeparationEffect, SeparationEvent
from p2psched.core.watchdog import Watchdog
from p2psched.model.blob import ResultBlob
from p2psched.model.errors import NoSpace
from p2psched.model.execution import ExecutorEvent
from p2psched.model.ids import PeerId
from p2psched.model.load import Seen
from p2psched.peer.pauses import Pauses
from p2psched.ports.clock import Clock
from p2psched.ports.executor import Executor

log = logging.getLogger(__name__)

CLOCK_PERIOD_S: Final = 0.1
RENEW_RETRY_S: Final = 0.5

E = TypeVar("E")
Common = Executed | Copied | Renewed | Round | Watched | SeparationEvent


def _nothing(_effect: SeparationEffect) -> None:
    """Nobody keeps anything."""


class CoreLoop(ABC, Generic[E]):
    """Made inside a running loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        executor: Executor,
        next_incarnation: Callable[[], int],
        on_bug: Callable[[Exception], None],
    ) -> None:
        self._clock = clock
        self._executor = executor
        self._next_incarnation = next_incarnation
        self._on_bug = on_bug
        self._loop = asyncio.get_running_loop()
        # What gossip says of the other peers, until it is there: nothing.
        self.look: Callable[[], Mapping[PeerId, Seen]] = dict
        # What this peer keeps for when it is cut off: nothing, until somebody does.
        self.keep: Callable[[SeparationEffect], None] = _nothing
        self._round: asyncio.Handle | None = None  # that is on its way
        self._pauses = Pauses(CLOCK_PERIOD_S)
        self._stopped = False

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def wall_of(self, at_ms: int) -> int:
        """What a wall clock says of that moment."""
        return self._clock.wall_ms() - (self._clock.now_ms() - at_ms)

    def _watch(self, watchdog: Watchdog) -> None:
        """See whether something stands still, if it is time."""
        now_ms = self._clock.now_ms()
        if watchdog.is_due(now_ms):
            self._step(Watched(now_ms, self._executor.standing()))

    def _attend(self, effect: Tend | Noticed) -> None:
        match effect:
            case Tend(how=how, batches=batches):
                self._executor.tend(how, batches)
            case Noticed(what=what):
                fields = {
                    "fault": effect.fault.value,
                    "step": effect.step,
                    "job": effect.job,
                    "tasks": str(effect.tasks),
                    "note": effect.note,
                }
                level = logging.INFO if what == "over" else logging.WARNING
                log.log(level, "stall-%s", what, extra=fields)

    @abstractmethod
    def _take(self, event: E | Common) -> None:
        """A step of the core, with what follows from it."""

    def stop(self) -> None:
        """No more steps."""
        self._stopped = True

    def on_executed(self, event: ExecutorEvent) -> None:
        self._step(Executed(self._clock.now_ms(), event))

    def on_copied(self, number: int, blobs: tuple[ResultBlob, ...]) -> None:
        self._step(Copied(self._clock.now_ms(), number, blobs))

    def on_separation(self, event: SeparationEvent) -> None:
        self._step(event)

    def _step(self, event: E | Common) -> None:
        if self._stopped:
            return
        try:
            self._take(event)
        except Exception as error:  # noqa: BLE001 (whatever it is, this peer must not go on)
            self.stop()
            self._on_bug(error)
            return
        if self._round is None and not isinstance(event, Round):
            self._round = self._loop.call_soon(self._on_round)
            self._pauses.stir()

    def _on_round(self) -> None:
        if self._round is not None:
            self._round.cancel()
            self._round = None
        self._step(Round(self._clock.now_ms()))

    def _execute(self, effect: StartBatch | StopBatch | EndTask | HoldLease | TakeBack) -> None:
        match effect:
            case StartBatch(batch=batch):
                self._executor.start(batch)
            case StopBatch(batch=number, cause=cause):
                self._executor.stop(number, cause)
            case HoldLease(batch=number, until_ms=until_ms):
                self._executor.renew(number, until_ms)
            case TakeBack():
                self._executor.take_back()
            case EndTask():
                self._executor.end_task(effect.batch, effect.index, effect.cause, effect.why)

    def _renew(self) -> None:
        """Rare, and nothing of ours may go on before it is on disk; on a full one it waits."""
        try:
            number = self._next_incarnation()
        except NoSpace:
            self._loop.call_later(RENEW_RETRY_S, self._renew)
        else:
            self._loop.call_soon(self._step, Renewed(self._clock.now_ms(), number))

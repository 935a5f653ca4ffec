"""Acts of clients on their way through the ledger: each is a row (`rows`), with a place in the line
of those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from p2psched.model.act_messages import DidSo, Do
from p2psched.model.actions import Act, Acted, fault_of, size_of
from p2psched.model.commands import Outcome
from p2psched.model.errors import NoSpace, P2PSchedError, Unavailable, UsageError
from p2psched.model.lease_actions import EndLease, KeepLeases, TakeLease
from p2psched.model.lock_actions import ReleaseLock
from p2psched.model.messages import CallBody
from p2psched.model.queue_actions import (
    AckItems,
    ExtendItems,
    NackItems,
    StopTaking,
    TakeItems,
)
from p2psched.net.patience import Patience
from p2psched.peer.lines import Place, busy
from p2psched.peer.queues import told
from p2psched.peer.roster import PATIENCE_S
from p2psched.peer.rows import Row
from p2psched.peer.scheduler_loop import SchedulerLoop

Reply = Callable[[DidSo | P2PSchedError], None]  # must not raise, nor propose

# What keeps or gives back what somebody has: to wait with that costs others more than it saves.
_NEVER_WAIT: Final = (
    *(TakeLease, KeepLeases, EndLease, ReleaseLock),
    *(AckItems, NackItems, ExtendItems, StopTaking),
)


class Acts:
    """`refusal` says why a call can't be taken just now."""

    def __init__(
        self, scheduling: SchedulerLoop, *, refusal: Callable[[CallBody], NoSpace | None]
    ) -> None:
        self.scheduling = scheduling
        self.refusal = refusal
        self.committing: Final = Patience(PATIENCE_S)

    def make(self, body: Do, reply: Reply) -> OpenAct:
        """To be begun. `reply` is called once then, at once or later, unless it is cancelled."""
        return OpenAct(self, body, reply)

    async def answer(self, body: Do) -> DidSo:
        """Raises a P2PSchedError for the caller."""
        answer: asyncio.Future[DidSo] = asyncio.get_running_loop().create_future()

        def reply(heard: DidSo | P2PSchedError) -> None:
            if answer.done():  # cancelled
                return
            if isinstance(heard, P2PSchedError):
                answer.set_exception(heard)
            else:
                answer.set_result(heard)

        row = self.make(body, reply)
        row.begin()
        try:
            return await answer
        finally:
            row.cancel()


class OpenAct(Row[DidSo]):
    __slots__ = ("_body", "_house", "_place", "_take")

    def __init__(self, house: Acts, body: Do, reply: Reply) -> None:
        super().__init__(house, reply)
        self._house = house
        self._body: Do | None = body  # until it is proposed: it may be large
        self._place: Place | None = None  # in the line, until its outcome is known
        self._take = body.action if isinstance(body.action, TakeItems) else None

    def begin(self) -> None:
        house, body = self._house, self._body
        assert body is not None, "an act begins once"
        self._body = None
        fault = fault_of(body.action)
        refusal: P2PSchedError | None = UsageError(fault) if fault else house.refusal(body)
        size = size_of(body.action)
        if refusal is None and not isinstance(body.action, _NEVER_WAIT):
            refusal = busy(house.scheduling.scheduler.door.refusal(size))
        if refusal is not None:
            self._end(refusal)
            return
        self._place = house.scheduling.line.take(size)
        self._propose(Act(body.caller, body.number, body.settled, body.action))

    def cancel(self) -> None:
        if self._place is not None:
            self._place.leave()
        super().cancel()

    def _on_outcome(self, outcome: Outcome | Unavailable) -> None:
        if self._place is not None and not isinstance(outcome, Unavailable):
            self._place.served()
        super()._on_outcome(outcome)

    def _answer(self, outcome: Outcome) -> DidSo:
        assert isinstance(outcome, Acted)
        machine = self._house.scheduling.scheduler.machine
        return DidSo(told(machine, self._take, outcome.answer))

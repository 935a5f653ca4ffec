"""Acts of clients on their way through the ledger, without a task for any of them.

An act is a row here until the outcome of its proposal is known, or nobody leads for too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from p2psched.model.act_messages import DidSo, Do
from p2psched.model.actions import Act, Acted, fault_of
from p2psched.model.commands import Outcome, Rejected
from p2psched.model.errors import NoSpace, P2PSchedError, Unavailable, UsageError, from_wire
from p2psched.model.messages import CallBody
from p2psched.model.queue_actions import TakeItems
from p2psched.net.patience import Patience
from p2psched.peer.queues import told
from p2psched.peer.roster import NO_QUORUM, PATIENCE_S
from p2psched.peer.scheduler_loop import SchedulerLoop

Reply = Callable[[DidSo | P2PSchedError], None]  # must not raise, nor propose


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


class OpenAct:
    """One row. Belongs to the loop of its peer."""

    __slots__ = ("_body", "_house", "_is_over", "_reply", "_tag", "_take")

    def __init__(self, house: Acts, body: Do, reply: Reply) -> None:
        self._house = house
        self._body: Do | None = body  # until it is proposed: it may be large
        self._reply = reply
        self._tag: int | None = None  # while its outcome is not known
        self._is_over = False
        self._take = body.action if isinstance(body.action, TakeItems) else None

    def begin(self) -> None:
        house, body = self._house, self._body
        assert body is not None, "an act begins once"
        self._body = None
        fault = fault_of(body.action)
        refusal = UsageError(fault) if fault else house.refusal(body)
        if refusal is not None:
            self._end(refusal)
            return
        house.committing.begin(self)
        act = Act(body.caller, body.number, body.settled, body.action)
        tag = house.scheduling.propose_nowait(act, self._on_outcome)
        if not self._is_over:
            self._tag = tag

    def cancel(self) -> None:
        """Nobody wants the answer any more; it may act all the same."""
        self._is_over = True
        tag, self._tag = self._tag, None
        self._house.committing.end(self)
        if tag is not None:
            self._house.scheduling.give_up(tag)

    def expire(self) -> None:
        self._end(Unavailable(NO_QUORUM))

    def _on_outcome(self, outcome: Outcome | Unavailable) -> None:
        self._tag = None
        if isinstance(outcome, Unavailable):
            self._end(outcome)
        elif isinstance(outcome, Rejected):
            self._end(from_wire(outcome.code, outcome.message, 1000))
        else:
            assert isinstance(outcome, Acted)
            machine = self._house.scheduling.scheduler.machine
            self._end(DidSo(told(machine, self._take, outcome.answer)))

    def _end(self, answer: DidSo | P2PSchedError) -> None:
        self.cancel()
        self._reply(answer)

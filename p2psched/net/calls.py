"""Calls over a connection: many at a time, each with its own answer.

It refuses more than CALLS_IN_FLIGHT_MAX open calls on one connection. A cancelled call is forgotten
here; the other side may still do what it asked for, so calls that change something must be safe to
repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from p2psched.model.errors import P2PSchedError, Unavailable, from_wire
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import Answer, AnswerBody, Call, CallBody, Failure
from p2psched.net.link import Connection

log = logging.getLogger(__name__)

Heard = Callable[[AnswerBody | P2PSchedError], None]  # must not raise


class CallClient:
    """The calls that this side makes over one connection, client or peer."""

    def __init__(self, connection: Connection) -> None:
        assert connection.answers is None, "a connection has one owner of its calls"
        self._connection = connection
        self._open: dict[int, Heard] = {}
        self._last_id = 0
        connection.answers = self

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def open_count(self) -> int:
        return len(self._open)

    async def call(self, body: CallBody) -> AnswerBody:
        """Ask and wait for the answer; the caller owns the deadline.

        Raises the error that the other side answered, Unavailable if the connection is or gets
        closed or too many calls are open, UsageError if the call fits no frame.
        """
        answer: asyncio.Future[AnswerBody] = asyncio.get_running_loop().create_future()
        number = self._begin(partial(_settle, answer))
        try:
            await self._connection.send(Call(id=number, body=body))
            return await answer
        finally:
            self.forget(number)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen here, should `send` have raised before it was awaited

    def call_nowait(self, body: CallBody, heard: Heard) -> int:
        """As `call`, for who needs no task: `heard` gets the answer or the error, once, unless the
        number that this returns is forgotten before. For a connection that has room.

        Raises UsageError if the call fits no frame, Unavailable if it can't be sent now.
        """
        number = self._begin(heard)
        sent = False
        try:
            sent = self._connection.send_nowait(Call(id=number, body=body))
        finally:
            if not sent:
                self.forget(number)
        if not sent:
            raise self._connection.lost()
        return number

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._open.pop(number, None)

    def _begin(self, heard: Heard) -> int:
        if len(self._open) >= CALLS_IN_FLIGHT_MAX:
            raise Unavailable(
                f"{CALLS_IN_FLIGHT_MAX} calls are open on this connection: wait for one to end",
                retry_after_s=0.1,
            )
        self._last_id += 1
        self._open[self._last_id] = heard
        return self._last_id

    async def close(self) -> None:
        """Close the connection and wait until it is; open calls end as Unavailable."""
        self._connection.close()
        await self._connection.wait_closed()

    # --- what the connection calls ----------------------------------------------------------------

    def on_answer(self, message: Answer | Failure) -> None:
        heard = self._open.pop(message.id, None)
        if heard is None:  # cancelled meanwhile
            log.debug("answer-unwanted", extra={"call": message.id})
        elif isinstance(message, Answer):
            heard(message.body)
        else:
            more_ms, busy = message.retry_after_ms, message.busy
            heard(from_wire(message.code, message.message, more_ms, busy=busy))

    def on_closed(self, error: P2PSchedError | None) -> None:
        del error  # `lost` tells it
        opened, self._open = self._open, {}
        for heard in opened.values():
            heard(self._connection.lost())


def _settle(answer: asyncio.Future[AnswerBody], heard: AnswerBody | P2PSchedError) -> None:
    if answer.done():  # cancelled, and its task has not had its turn yet
        return
    if isinstance(heard, P2PSchedError):
        answer.set_exception(heard)
    else:
        answer.set_result(heard)

"""Calls over a connection: many at a time, each with its own answer.

It refuses more than CALLS_IN_FLIGHT_MAX open calls on one connection. A cancelled call is forgotten
here; the other side may still do what it asked for, so calls that change something must be safe to
repeat.
"""

from __future__ import annotations

import asyncio
import logging

from p2psched.model.errors import P2PSchedError, Unavailable, from_wire
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import Answer, AnswerBody, Call, CallBody, Failure
from p2psched.net.link import Connection

log = logging.getLogger(__name__)


class CallClient:
    """The calls that this side makes over one connection, client or peer."""

    def __init__(self, connection: Connection) -> None:
        assert connection.answers is None, "a connection has one owner of its calls"
        self._connection = connection
        self._open: dict[int, asyncio.Future[AnswerBody]] = {}
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
        if len(self._open) >= CALLS_IN_FLIGHT_MAX:
            raise Unavailable(
                f"{CALLS_IN_FLIGHT_MAX} calls are open on this connection: wait for one to end",
                retry_after_s=0.1,
            )
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[AnswerBody] = asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            await self._connection.send(Call(id=number, body=body))
            return await answer
        finally:
            del self._open[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen here, should `send` have raised before it was awaited

    async def close(self) -> None:
        """Close the connection and wait until it is; open calls end as Unavailable."""
        self._connection.close()
        await self._connection.wait_closed()

    # --- what the connection calls ----------------------------------------------------------------

    def on_answer(self, message: Answer | Failure) -> None:
        answer = self._open.get(message.id)
        if answer is None or answer.done():  # cancelled meanwhile
            log.debug("answer-unwanted", extra={"call": message.id})
        elif isinstance(message, Answer):
            answer.set_result(message.body)
        else:
            answer.set_exception(from_wire(message.code, message.message, message.retry_after_ms))

    def on_closed(self, error: P2PSchedError | None) -> None:
        del error  # `lost` tells it
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(self._connection.lost())

"""Calls on connections: one task each, bounded, cancelled when their connection goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.model.blob_messages import ReadBlob
from p2psched.model.errors import P2PSchedError, Unavailable, UsageError
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import Answer, AnswerBody, Call, CallBody, Failure
from p2psched.net.link import Connection

log = logging.getLogger(__name__)

# Answers with a chunk on one connection, from the read until it is written: a caller that asks for
# more than it takes must not fill this peer's memory. Further ones wait.
CHUNKS_OUT_MAX: Final = 16

_BUSY: Final = f"busy: {CALLS_IN_FLIGHT_MAX} calls are open on this connection"


class Answering:
    """`answer` raises P2PSchedError for what the caller shall hear."""

    def __init__(
        self, group: asyncio.TaskGroup, answer: Callable[[CallBody], Awaitable[AnswerBody]]
    ) -> None:
        self._group = group
        self._answer = answer
        self._tasks: dict[Connection, set[asyncio.Task[None]]] = {}
        self._chunks_out: dict[Connection, asyncio.Semaphore] = {}

    def on_call(self, connection: Connection, call: Call) -> None:
        tasks = self._tasks.setdefault(connection, set())
        if len(tasks) >= CALLS_IN_FLIGHT_MAX:
            connection.send_nowait(Failure(call.id, Unavailable.code, _BUSY, 100))
            return
        serve = self._serve_chunk if isinstance(call.body, ReadBlob) else self._serve
        task = self._group.create_task(serve(connection, call))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_closed(self, connection: Connection) -> None:
        self._chunks_out.pop(connection, None)
        for task in self._tasks.pop(connection, ()):
            task.cancel()

    async def _serve_chunk(self, connection: Connection, call: Call) -> None:
        places = self._chunks_out.setdefault(connection, asyncio.Semaphore(CHUNKS_OUT_MAX))
        async with places:
            await self._serve(connection, call)

    async def _serve(self, connection: Connection, call: Call) -> None:
        reply: Answer | Failure
        try:
            reply = Answer(call.id, await self._answer(call.body))
        except P2PSchedError as error:
            retry_ms = int(error.retry_after_s * 1000) if isinstance(error, Unavailable) else 0
            reply = Failure(call.id, error.code, str(error), retry_ms)
        except Exception:
            # A bug of ours must not end the peer, and the caller must not wait for ever.
            log.exception("call-failed", extra={"call": type(call.body).__name__})
            reply = Failure(call.id, P2PSchedError.code, "this peer failed to answer: see its log")
        try:
            await connection.send(reply)
        except Unavailable:
            pass  # the caller is gone
        except UsageError as error:
            connection.send_nowait(Failure(call.id, error.code, str(error)))

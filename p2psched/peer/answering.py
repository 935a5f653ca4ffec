"""Calls on connections: bounded, each answered once, cancelled when their connection goes.

Most have a task each. What can be proposed at once has none: see `acts`, `wishes`, `submissions`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from p2psched.model.act_messages import DidSo, Do
from p2psched.model.blob_messages import ReadBlob
from p2psched.model.errors import Busy, P2PSchedError, Unavailable, UsageError
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import (
    Answer,
    AnswerBody,
    Call,
    CallBody,
    Done,
    Failure,
    FirstResults,
    JobAccepted,
    Submit,
    Wish,
)
from p2psched.net.link import Connection

if TYPE_CHECKING:
    from p2psched.peer.acts import Acts
    from p2psched.peer.submissions import Submissions, SubmitAnswer
    from p2psched.peer.wishes import Wishes

log = logging.getLogger(__name__)

# Answers with a chunk on one connection, from the read until it is written: a caller that asks for
# more than it takes must not fill this peer's memory. Further ones wait.
CHUNKS_OUT_MAX: Final = 16

_BUSY: Final = f"busy: {CALLS_IN_FLIGHT_MAX} calls are open on this connection"

_SLOW: Final = "answers wait on this connection: read them, and ask again"
_STOPPING: Final = "this peer is stopping"


class _Open(Protocol):
    """A call that has no answer yet."""

    def cancel(self) -> object: ...


class _Row(_Open, Protocol):
    """Such a call without a task, which may be answered as soon as it begins."""

    def begin(self) -> None: ...


class Answering:
    """`answer` raises P2PSchedError for what the caller shall hear."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        answer: Callable[[CallBody], Awaitable[AnswerBody]],
        submissions: Submissions | None = None,
        acts: Acts | None = None,
        wishes: Wishes | None = None,
    ) -> None:
        self._group = group
        self._answer = answer
        self._submissions = submissions
        self._acts = acts
        self._wishes = wishes
        self._open: dict[Connection, set[_Open]] = {}
        self._chunks_out: dict[Connection, asyncio.Semaphore] = {}

    def on_call(self, connection: Connection, call: Call) -> None:
        open_calls = self._open.setdefault(connection, set())
        if len(open_calls) >= CALLS_IN_FLIGHT_MAX:
            connection.send_nowait(Failure(call.id, Unavailable.code, _BUSY, 100, busy=True))
            return
        body, submissions = call.body, self._submissions
        if submissions is not None and isinstance(body, Submit) and submissions.takes(body):
            self._submit(submissions, open_calls, connection, call.id, body)
            return
        if isinstance(body, Do) and self._acts is not None:
            acts = self._acts
            _begin(lambda reply: acts.make(body, reply), open_calls, connection, call.id)
            return
        if isinstance(body, Wish) and self._wishes is not None:
            wishes = self._wishes
            _begin(lambda reply: wishes.make(body, reply), open_calls, connection, call.id)
            return
        serving = self._serve_chunk if isinstance(body, ReadBlob) else self._serve
        serve = serving(connection, call)
        try:
            task = self._group.create_task(serve)
        except RuntimeError:  # the group ends, and takes nobody in any more
            serve.close()
            connection.send_nowait(Failure(call.id, Unavailable.code, _STOPPING, 1000))
            return
        open_calls.add(task)
        task.add_done_callback(open_calls.discard)

    def on_closed(self, connection: Connection) -> None:
        self._chunks_out.pop(connection, None)
        for open_call in self._open.pop(connection, ()):
            open_call.cancel()

    def _submit(
        self,
        submissions: Submissions,
        open_calls: set[_Open],
        connection: Connection,
        number: int,
        body: Submit,
    ) -> None:
        job = body.job  # not all of it: it may be large

        def reply(answer: SubmitAnswer | P2PSchedError) -> None:
            open_calls.discard(submission)
            if isinstance(answer, P2PSchedError):
                connection.send_nowait(_failure(number, answer))
                return
            if isinstance(answer, FirstResults) and not connection.has_room:
                # What waits for a slow reader is bounded: it fetches them once it has read.
                answer = JobAccepted(job, duplicate=False)
            connection.send_nowait(Answer(number, answer))

        submission = submissions.make(body, reply)
        open_calls.add(submission)
        submission.begin()

    async def _serve_chunk(self, connection: Connection, call: Call) -> None:
        places = self._chunks_out.setdefault(connection, asyncio.Semaphore(CHUNKS_OUT_MAX))
        async with places:
            await self._serve(connection, call)

    async def _serve(self, connection: Connection, call: Call) -> None:
        reply: Answer | Failure
        try:
            reply = Answer(call.id, await self._answer(call.body))
        except P2PSchedError as error:
            reply = _failure(call.id, error)
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


def _begin(
    make: Callable[[Callable[[DidSo | Done | P2PSchedError], None]], _Row],
    open_calls: set[_Open],
    connection: Connection,
    number: int,
) -> None:
    def reply(answer: DidSo | Done | P2PSchedError) -> None:
        open_calls.discard(row)
        if isinstance(answer, P2PSchedError):
            connection.send_nowait(_failure(number, answer))
        elif connection.has_room:
            connection.send_nowait(Answer(number, answer))
        else:  # what waits for a slow reader is bounded: asked again, it gets the same answer
            connection.send_nowait(Failure(number, Unavailable.code, _SLOW, 100))

    row = make(reply)
    open_calls.add(row)
    row.begin()


def _failure(number: int, error: P2PSchedError) -> Failure:
    retry_ms = int(error.retry_after_s * 1000) if isinstance(error, Unavailable) else 0
    return Failure(number, error.code, str(error), retry_ms, busy=isinstance(error, Busy))

"""Acts that act once, whatever happens to their answers.

A client enrols before its first act, and numbers what it does. An act without an answer is repeated
under its number, at this peer or another, until the session's patience ends; the ledger knows what
it has done. Then Unavailable is raised: whether it acted is not known, and nothing repeats it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, Protocol, TypeVar

from p2psched.model.act_messages import DidSo, Do
from p2psched.model.actions import Action, fault_of
from p2psched.model.errors import Forgotten, P2PSchedError, Refused, Unavailable, UsageError
from p2psched.model.lease_actions import Enrol, Enrolled
from p2psched.model.messages import AnswerBody, CallBody
from p2psched.net.calls import Heard

T = TypeVar("T")

IDLE_S: Final = 300.0  # after that a client enrols anew: it may have been forgotten


class Calls(Protocol):
    """What it needs of a session."""

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T: ...

    def call_nowait(self, body: CallBody, heard: Heard) -> bool: ...


class _Caller:
    """A name to act under, and the numbers of what has no answer yet."""

    def __init__(self, name: int) -> None:
        self.name: Final = name
        self._next = 1
        self._open: dict[int, None] = {}  # lowest first
        self.used_s = 0.0

    def begin(self) -> int:
        number, self._next = self._next, self._next + 1
        self._open[number] = None
        return number

    def end(self, number: int) -> None:
        del self._open[number]

    @property
    def settled(self) -> int:
        return next(iter(self._open), self._next)

    def is_stale(self, now_s: float) -> bool:
        return not self._open and now_s - self.used_s > IDLE_S


class Acting:
    """Of one session, in its event loop."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._caller: _Caller | None = None
        self._enrolling = asyncio.Lock()

    async def act(self, action: Action, expect: type[T]) -> T:
        """What came of it. Raises what the ledger refused it with; Unavailable if nobody could be
        asked for too long; Forgotten if the ledger does not know any more whether it acted."""
        fault = fault_of(action)
        if fault:
            raise UsageError(fault)
        while True:
            caller = self._caller
            now_s = asyncio.get_running_loop().time()
            if caller is None or caller.is_stale(now_s):
                caller = await self._enrolled()
            caller.used_s = now_s
            number = caller.begin()
            try:
                answer = await self._do(caller, number, action)
            except _NeverAsked:
                if self._caller is caller:
                    self._caller = None
            else:
                if not isinstance(answer, expect):
                    raise Refused(f"a peer of another version answered {type(answer).__name__}")
                return answer
            finally:
                caller.end(number)

    async def _enrolled(self) -> _Caller:
        async with self._enrolling:
            now_s = asyncio.get_running_loop().time()
            if self._caller is None or self._caller.is_stale(now_s):
                answer = (await self._calls.call(Do(0, 0, 0, Enrol()), DidSo)).answer
                assert isinstance(answer, Enrolled)
                self._caller = _Caller(answer.caller)
                self._caller.used_s = now_s
            return self._caller

    async def _do(self, caller: _Caller, number: int, action: Action) -> object:
        body = Do(caller.name, number, caller.settled, action)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        first: asyncio.Future[AnswerBody] = loop.create_future()
        if self._calls.call_nowait(body, partial(_settle, first)):
            try:
                answer = await first
            except Forgotten as error:
                raise _NeverAsked from error  # nobody else was asked, so it has not acted
            except Unavailable:
                pass
            else:
                if not isinstance(answer, DidSo):
                    raise Refused(f"a peer of another version answered {type(answer).__name__}")
                return answer.answer
        spent_s = loop.time() - begun_s
        return (await self._calls.call(body, DidSo, spent_s=spent_s)).answer


class _NeverAsked(Exception):
    """The name is not known any more, and nothing was done under this number."""


def _settle(future: asyncio.Future[AnswerBody], heard: AnswerBody | P2PSchedError) -> None:
    if future.done():  # cancelled
        return
    if isinstance(heard, P2PSchedError):
        future.set_exception(heard)
    else:
        future.set_result(heard)

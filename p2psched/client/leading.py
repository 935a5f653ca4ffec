"""A connection to the peer that leads, beside a session's own, while there are many single calls.

Any peer takes a submit, but only the leader puts it into the ledger and hears first what came of
it: another one has to be woken at each step. It is a wish and no more: until the leader is known
and reached, and whenever a call fails there, the session's own connection serves.

It looks for the leader once in `LOOK_S` as long as many calls are made, and ends when few are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.model.errors import P2PSchedError
from p2psched.model.messages import ListPeers
from p2psched.model.peer_messages import PeerList
from p2psched.net.calls import CallClient
from p2psched.net.link import State

MANY_CALLS: Final = 32  # then the leader is looked for; as many in `LOOK_S` keep it
LOOK_S: Final = 5.0
ASK_TIMEOUT_S: Final = 2.0


class LeaderLink:
    """`own` is the session's connection, `connect` makes another one to an address; both raise
    P2PSchedError, or TimeoutError."""

    def __init__(
        self,
        own: Callable[[], Awaitable[CallClient]],
        connect: Callable[[str], Awaitable[CallClient]],
    ) -> None:
        self._own = own
        self._connect = connect
        self._calls: CallClient | None = None
        self._leaving: CallClient | None = None  # its last calls may be open
        self._made = 0  # calls since the last look
        self._many = asyncio.Event()

    def choose(self, own: CallClient | None) -> CallClient | None:
        """Which connection a single call goes to."""
        self._made += 1
        if self._made == MANY_CALLS:
            self._many.set()
        calls = self._calls
        if calls is None or not calls.connection.has_room:
            return own
        return calls

    def give_up(self, calls: CallClient) -> None:
        """It failed."""
        if calls is self._calls:
            self._calls = None

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._many.wait()
            self._many.clear()
            self._made = 0
            with contextlib.suppress(P2PSchedError, TimeoutError):
                await self._look()
            await asyncio.sleep(LOOK_S)
            if self._made < MANY_CALLS:
                await self.close()

    async def _look(self) -> None:
        await self._part_with(self._leaving)
        self._leaving = None
        async with asyncio.timeout(ASK_TIMEOUT_S):
            own = await self._own()
            answer = await own.call(ListPeers(here_only=True))
            assert isinstance(answer, PeerList)
            leaders = [view.info for view in answer.peers if view.role == "leader"]
            wanted = leaders[0] if leaders else None
            held = self._calls
            if held is not None and held.connection.state is State.OPEN:
                if wanted is not None and wanted.peer == held.connection.peer:
                    return
                self._leaving = held
            self._calls = None
            if wanted is not None and wanted.peer != own.connection.peer:
                self._calls = await self._connect(wanted.address)

    async def close(self) -> None:
        """What is open there fails, and may be asked again."""
        held, self._calls = [self._leaving, self._calls], None
        self._leaving = None
        for calls in held:
            await self._part_with(calls)

    async def _part_with(self, calls: CallClient | None) -> None:
        if calls is not None:
            await calls.close()

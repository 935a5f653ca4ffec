"""A session turns to another peer once, however many calls fail on the connection that broke."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest

from p2psched.client import session as module
from p2psched.client.session import Session
from p2psched.model.errors import Unavailable
from p2psched.model.messages import AnswerBody, CallBody, Done, StopPeer
from p2psched.net.calls import CallClient
from p2psched.net.link import State

ADDRESSES = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]


class OneLink:
    """A connection to a peer that answers or does not."""

    def __init__(self, fails: asyncio.Future[None] | None) -> None:
        self.connection = SimpleNamespace(state=State.OPEN)
        self._fails = fails

    async def call(self, body: CallBody) -> AnswerBody:
        if self._fails is None:
            return Done()
        await asyncio.shield(self._fails)
        raise Unavailable("broken", retry_after_s=0)

    async def close(self) -> None:
        self.connection.state = State.CLOSED


class ThreePeers(Session):
    """The first breaks off, the others answer."""

    def __init__(self) -> None:
        super().__init__(ADDRESSES, secret=b"")
        self.fails: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connects: Counter[str] = Counter()

    async def _connect(self, address: str) -> CallClient:
        self.connects[address] += 1
        link = OneLink(self.fails if address == ADDRESSES[0] else None)
        return cast("CallClient", link)


@pytest.mark.parametrize("calls", [1, 2, 3, 8])
def test_all_calls_on_a_broken_connection_go_on_at_the_next_peer(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)

    async def story() -> None:
        session = ThreePeers()
        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                group.create_task(session.call(StopPeer(), Done))
            await asyncio.sleep(0)
            session.fails.set_result(None)
        assert session.connects == {ADDRESSES[0]: 1, ADDRESSES[1]: 1}

    asyncio.run(story())

"""Many single calls go to the peer that leads, as long as there is one and it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from p2psched.client import leading as module
from p2psched.client.leading import MANY_CALLS
from p2psched.model.commands import PeerInfo
from p2psched.model.errors import Unavailable
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody, GetStatus, ListPeers
from p2psched.model.peer_messages import PeerList, PeerView
from p2psched.net.calls import CallClient
from p2psched.net.link import State
from tests.client.fake import turns
from tests.client.test_session import FakedSession, FakeLink, FakePeer

A, B, C = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"


class Cluster(FakedSession):
    """Three peers, of which one leads, or none."""

    def __init__(self) -> None:
        super().__init__(A, B, C)
        self.leads = B
        self.refuses: set[str] = set()

    async def _connect(self, address: str) -> CallClient:
        if address in self.refuses:
            raise Unavailable(f"{address} is not reached")
        peer = Peer(address, FakeLink(address, peer=address))
        peer.cluster = self
        self.peers.append(peer)
        return cast("CallClient", peer)

    def submit(self, count: int = 1) -> str:
        """Single calls, all answered. Where the last one went to."""
        for _ in range(count):
            assert self.call_nowait(GetStatus(), lambda _: None)
            asked = next(peer for peer in self.peers if peer.quick)
            asked.quick.popitem()[1](PeerList(()))
        return asked.address

    def at(self, address: str) -> list[FakePeer]:
        return [peer for peer in self.peers if peer.address == address]


class Peer(FakePeer):
    cluster: Cluster

    async def call(self, body: CallBody) -> AnswerBody:
        assert isinstance(body, ListPeers)
        views = []
        for address in (A, B, C):
            info = PeerInfo(PeerId(address), 1, address, address, 1, 1, "", "")
            role = "leader" if address == self.cluster.leads else "voter"
            views.append(PeerView(info, role, "alive", 0, None))
        return PeerList(tuple(views))


@asynccontextmanager
async def kept(cluster: Cluster) -> AsyncIterator[Cluster]:
    await cluster.connection()
    keeping = asyncio.create_task(cluster.leader.keep())  # noqa: TID251
    await turns()
    try:
        yield cluster
    finally:
        keeping.cancel()
        await cluster.__aexit__()
        assert all(peer.connection.state is State.CLOSED for peer in cluster.peers)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)


def test_few_calls_go_to_the_peer_that_was_asked_for() -> None:
    async def main() -> None:
        async with kept(Cluster()) as cluster:
            assert cluster.submit(MANY_CALLS - 1) == A
            await turns()
            assert cluster.submit() == A
            assert [peer.address for peer in cluster.peers] == [A]

    asyncio.run(main())


def test_many_calls_go_to_the_leader_until_they_are_few() -> None:
    async def main() -> None:
        async with kept(Cluster()) as cluster:
            cluster.submit(MANY_CALLS)
            while not cluster.at(B):
                await turns(1)
            assert cluster.submit(MANY_CALLS) == B
            while cluster.at(B)[0].connection.state is State.OPEN:
                await turns(1)
            assert cluster.submit() == A

    asyncio.run(main())


def test_a_new_leader_is_found_and_the_old_one_is_left() -> None:
    async def main() -> None:
        async with kept(Cluster()) as cluster:
            while not cluster.at(B):
                cluster.submit(MANY_CALLS)
                await turns(1)
            cluster.leads = C
            while not cluster.at(C):
                cluster.submit(MANY_CALLS)
                await turns(1)
            assert cluster.submit() == C
            while cluster.at(B)[0].connection.state is State.OPEN:
                cluster.submit(MANY_CALLS)
                await turns(1)

    asyncio.run(main())


def test_a_leader_that_fails_is_left_at_once_and_the_session_stays_where_it_is() -> None:
    async def main() -> None:
        async with kept(Cluster()) as cluster:
            cluster.submit(MANY_CALLS)
            while not cluster.at(B):
                await turns(1)
            heard: list[object] = []
            assert cluster.call_nowait(GetStatus(), heard.append)
            cluster.at(B)[0].quick.popitem()[1](Unavailable("it is going"))
            assert isinstance(heard[0], Unavailable)
            assert cluster.submit() == A
            assert cluster.address == A

    asyncio.run(main())


@pytest.mark.parametrize("leads", [A, B, ""])
def test_without_a_leader_elsewhere_that_is_reached_nothing_changes(leads: str) -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.leads, cluster.refuses = leads, {B}
        async with kept(cluster):
            for _ in range(3):
                assert cluster.submit(MANY_CALLS) == A
                await turns()
            assert [peer.address for peer in cluster.peers] == [A]

    asyncio.run(main())

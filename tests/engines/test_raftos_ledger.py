"""What raftos as a ledger adds to the contract: who is in the group, and what is no message."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

import pytest

from p2psched.model.commands import Command, PeerInfo, PeerUp
from p2psched.model.errors import Refused
from p2psched.model.ids import PeerId
from p2psched.model.raft import Member
from p2psched.peer.engines import embedded
from p2psched.testing.sim_disk import SimDisk
from tests.engines.on_raftos import RaftosGroup
from tests.engines.test_contract import needs_raftos

pytestmark = needs_raftos


def run_on(group: RaftosGroup, scenario: Callable[[RaftosGroup], Awaitable[None]]) -> None:
    async def main() -> None:
        await group.found()
        try:
            await scenario(group)
        finally:
            await group.close()

    asyncio.run(main())


def _up(group: RaftosGroup, peer: PeerId) -> Command:
    return PeerUp(PeerInfo(peer, 1, "", group.address_of[peer], 0, 0, "", ""), ())


def test_the_secret_that_raftos_comes_with_is_refused() -> None:
    from p2psched.engines.raftos.secrecy import cryptor_of  # noqa: PLC0415 (needs raftos)

    with pytest.raises(Refused, match="everybody knows it"):
        cryptor_of(b"raftos sample secret key")
    cryptor = cryptor_of(b"nobody knows this one")
    assert cryptor.decrypt(cryptor.encrypt(b"data")) == b"data"


def test_a_member_without_its_disk_is_somebody_else_and_does_not_vote() -> None:
    group = RaftosGroup(3)

    async def scenario(group: RaftosGroup) -> None:
        await group.commit_all([_up(group, peer) for peer in group.ids])  # as schedulers do
        leader = await group.lead()
        lost = next(peer for peer in group.ids if peer != leader)
        address = group.address_of[lost]
        await group.kill(lost)
        stranger = PeerId("e" * 32)
        group.join(stranger, address, SimDisk(random.Random(1)))
        await group.start(stranger)
        group.dead.add(stranger)  # of whom nothing is expected
        leader = await group.commit(10)
        assert group.listeners[stranger].batches == []
        await group.kill(leader)  # of the two that knew each other one is left
        (left,) = set(group.ids) - {leader, lost}
        await group.until(lambda: group.listeners[left].coordinator is None)
        ledger = group.ledgers[left]
        term = ledger.engine.raft.term
        await group.until(lambda: ledger.engine.raft.term >= term + 3)  # it stands in vain
        assert group.listeners[left].coordinator is None

    run_on(group, scenario)


def test_what_was_not_said_with_the_secret_is_dropped() -> None:
    group = RaftosGroup(3)

    async def scenario(group: RaftosGroup) -> None:
        await group.lead()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
            for peer in group.ids:
                host, port = group.address_of[peer].split(":")
                for data in (b"", b"x" * 1000, b"gAAAAA" + b"A" * 100):
                    anybody.sendto(data, (host, int(port)))
        await group.commit(0, 10)

    run_on(group, scenario)


def test_an_address_that_is_taken_ends_the_start_with_its_name() -> None:
    group = RaftosGroup(1)

    async def main() -> None:
        host, port = group.address_of[group.ids[0]].split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((host, int(port)))
            with pytest.raises(Refused, match="can't take datagrams"):
                await group.found()
        await group.close()

    asyncio.run(main())


def test_what_needs_members_or_snapshots_is_refused() -> None:
    group = RaftosGroup(1)

    async def scenario(group: RaftosGroup) -> None:
        await group.commit(0)
        ledger = group.ledgers[group.ids[0]]
        with pytest.raises(Refused, match="newcomer can't join: the group"):
            ledger.add_member(Member(PeerId("e" * 32), "newcomer", "127.0.0.1:1"))
        with pytest.raises(Refused, match="a raftos ledger has no snapshots: see docs/engines"):
            embedded(ledger, "has no snapshots")

    run_on(group, scenario)

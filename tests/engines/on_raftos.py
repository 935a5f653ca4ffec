"""raftos, hardened: datagrams on loopback, simulated disks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from p2psched.core.raft.timing import Timing
from p2psched.demo.static import free_addresses
from p2psched.model.commands import Envelope
from p2psched.model.ids import PeerId
from p2psched.model.messages import Forward
from p2psched.model.raft import RaftMessage
from p2psched.observe.clock import BootClock
from p2psched.store.log import LogStore
from p2psched.testing.sim_disk import SimDisk
from tests.engines.rig import PATIENCE_S, Group, Listener

if TYPE_CHECKING:
    from p2psched.engines.raftos.ledger import RaftosLedger
    from p2psched.engines.raftos.member import GroupMessage

TIMING: Final = Timing(heartbeat_ms=20, election_ms_min=100, election_ms_max=300)
SECRET: Final = b"nobody knows this one" * 2


class RaftosGroup(Group):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.ids = [PeerId(f"{number:032x}") for number in range(1, size + 1)]
        self.address_of = dict(zip(self.ids, free_addresses(size), strict=True))
        self._peer_at = {address: peer for peer, address in self.address_of.items()}
        self.disks = {peer: SimDisk(random.Random(peer)) for peer in self.ids}
        self.ledgers: dict[PeerId, RaftosLedger] = {}
        self.listeners = {}
        self.failures: list[Exception] = []

    def join(self, peer: PeerId, address: str, disk: SimDisk) -> None:
        """Somebody else, in the place of who was at this address."""
        self.address_of[peer] = address
        self._peer_at[address] = peer
        self.disks[peer] = disk

    async def found(self) -> None:
        for peer in self.ids:
            await self.start(peer)

    async def start(self, peer: PeerId) -> None:
        from p2psched.engines.raftos.ledger import RaftosLedger  # noqa: PLC0415 (may be missing)

        self.dead.discard(peer)
        listener = self.listeners[peer] = Listener(peer)
        store, recovered = LogStore.open(self.disks[peer])
        ledger = self.ledgers[peer] = RaftosLedger(
            me=peer,
            address=self.address_of[peer],
            group=sorted(self._peer_at),
            secret=SECRET,
            timing=TIMING,
            store=store,
            hard_state=recovered.hard_state,
            entries=recovered.entries,
            clock=BootClock(),
            rng=random.Random(peer),
            send=lambda to, message: self._send(peer, to, message),
            listener=listener,
            on_membership=lambda _: None,
            on_disk_failed=self.failures.append,
            on_bug=self.failures.append,
        )
        send = ledger.member.send

        def cut_or_send(address: str, message: GroupMessage) -> None:
            if not {peer, self._peer_at[address]} & self.cut:
                send(address, message)

        setattr(ledger.member, "send", cut_or_send)  # noqa: B010 (mypy knows it as a method)
        await ledger.open()
        ledger.start()

    async def kill(self, peer: PeerId) -> None:
        self.dead.add(peer)
        self.ledgers.pop(peer).stop()
        await asyncio.sleep(0)  # its socket is closed in the next turn
        self.disks[peer].crash()

    async def close(self) -> None:
        for ledger in self.ledgers.values():
            ledger.stop()
        assert not self.failures

    def append(self, peer: PeerId, envelopes: Sequence[Envelope]) -> None:
        self.ledgers[peer].append(envelopes)

    def read_index(self, peer: PeerId, done: Callable[[int | None], None]) -> None:
        self.ledgers[peer].read_index(done)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self.failures, self.failures
                await asyncio.sleep(0.001)

    def _send(self, sender: PeerId, to: PeerId, message: RaftMessage | Forward) -> None:
        asyncio.get_running_loop().call_soon(self._arrive, sender, to, message)

    def _arrive(self, sender: PeerId, to: PeerId, message: RaftMessage | Forward) -> None:
        if not {sender, to} & self.cut and to in self.ledgers:
            self.ledgers[to].on_message(sender, message)

"""The embedded engine under its asyncio loop: messages handed over directly, simulated disks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from p2psched.core.raft.timing import Timing
from p2psched.model.commands import Envelope
from p2psched.model.ids import PeerId
from p2psched.model.messages import Forward
from p2psched.model.raft import Member, RaftMessage
from p2psched.observe.clock import BootClock
from p2psched.peer.raft_loop import RaftLedger
from p2psched.store.log import LogStore
from p2psched.testing.sim_disk import SimDisk
from p2psched.testing.sim_world import founding_of
from tests.engines.rig import PATIENCE_S, Group, Listener

TIMING: Final = Timing(heartbeat_ms=20, election_ms_min=60, election_ms_max=120)


class EmbeddedGroup(Group):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.ids = [PeerId(f"{number:032x}") for number in range(1, size + 1)]
        self._members = [Member(peer, "", "") for peer in self.ids]
        self._disks = {peer: SimDisk(random.Random(peer)) for peer in self.ids}
        self._ledgers: dict[PeerId, RaftLedger] = {}
        self.listeners = {}
        self._failures: list[Exception] = []

    async def found(self) -> None:
        for number, peer in enumerate(self.ids):
            founding = founding_of(self._members, number, formed=True)
            assert founding is not None
            store, _ = LogStore.open(self._disks[peer])
            store.write(
                hard_state=founding.hard_state, truncate_from=None, entries=founding.entries
            )
            store.sync()
            store.close()
            await self.start(peer)

    async def start(self, peer: PeerId) -> None:
        self.dead.discard(peer)
        listener = self.listeners[peer] = Listener(peer)
        store, recovered = LogStore.open(self._disks[peer])
        ledger = self._ledgers[peer] = RaftLedger(
            me=peer,
            timing=TIMING,
            store=store,
            recovered=recovered,
            clock=BootClock(),
            rng=random.Random(peer),
            send=lambda to, message: self._send(peer, to, message),
            listener=listener,
            on_membership=lambda _: None,
            on_disk_failed=self._failures.append,
            on_bug=self._failures.append,
        )
        ledger.start()

    async def kill(self, peer: PeerId) -> None:
        self.dead.add(peer)
        self._ledgers.pop(peer).stop()
        self._disks[peer].crash()

    async def close(self) -> None:
        for ledger in self._ledgers.values():
            ledger.stop()
        assert not self._failures

    def append(self, peer: PeerId, envelopes: Sequence[Envelope]) -> None:
        self._ledgers[peer].append(envelopes)

    def read_index(self, peer: PeerId, done: Callable[[int | None], None]) -> None:
        self._ledgers[peer].read_index(done)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self._failures, self._failures
                await asyncio.sleep(0.001)

    def _send(self, sender: PeerId, to: PeerId, message: RaftMessage | Forward) -> None:
        asyncio.get_running_loop().call_soon(self._arrive, sender, to, message)

    def _arrive(self, sender: PeerId, to: PeerId, message: RaftMessage | Forward) -> None:
        if not {sender, to} & self.cut and to in self._ledgers:
            self._ledgers[to].on_message(sender, message)

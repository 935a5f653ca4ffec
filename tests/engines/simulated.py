"""The twin of the embedded engine in the simulator, under virtual time. A scheduler stands above
it; what that is told is listened to on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest.mock import patch

from p2psched.core import scheduler as sched
from p2psched.model.commands import Envelope
from p2psched.model.ids import PeerId
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_items import TurnEnds
from p2psched.testing.sim_peer import SimPeer
from tests.engines.rig import Group, Listener

PATIENCE_MS = 60_000


class SimulatedGroup(Group):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._cluster = SimCluster(seed=size, peers=size)
        self._peers = {peer.id: peer for peer in self._cluster.peers}
        self.ids = list(self._peers)
        self.listeners = {peer: Listener(peer) for peer in self.ids}
        self._reads: dict[int, Callable[[int | None], None]] = {}
        for simulated in self._cluster.peers:
            self._listen(simulated)

    def _listen(self, peer: SimPeer) -> None:
        decide = peer.decide

        def listening(event: sched.SchedulerEvent) -> None:
            listener = self.listeners[peer.id]
            match event:
                case sched.Applied(batches=batches):
                    listener.on_committed(batches)
                case sched.CoordinatorChanged(coordinator=coordinator, is_self=is_self):
                    listener.on_coordinator(coordinator, is_self=is_self)
                case _:
                    pass
            decide(event)

        patch.object(peer, "decide", listening).start()

    async def found(self) -> None:
        """The cluster starts them."""

    async def start(self, peer: PeerId) -> None:
        self.dead.discard(peer)
        self.listeners[peer] = Listener(peer)
        self._cluster.start(self._peers[peer].number)

    async def kill(self, peer: PeerId) -> None:
        self.dead.add(peer)
        self._cluster.kill(self._peers[peer].number)

    async def close(self) -> None:
        patch.stopall()
        assert self._cluster.events

    def append(self, peer: PeerId, envelopes: Sequence[Envelope]) -> None:
        simulated = self._peers[peer]
        simulated.engine.append(envelopes)
        self._cluster.later(1, simulated, TurnEnds())

    def read_index(self, peer: PeerId, done: Callable[[int | None], None]) -> None:
        self._cluster.read(self._peers[peer].number, done)

    async def until(self, condition: Callable[[], object]) -> None:
        network = self._cluster.network
        network.mend()
        for peer in self.cut:
            number = self._peers[peer].number
            others = [other.number for other in self._cluster.peers if other.number != number]
            network.cut_between([number], others)
        self._cluster.run_until(lambda: bool(condition()), within_ms=PATIENCE_MS)

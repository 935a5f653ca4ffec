"""Reads through a simulated peer: answered once what they must see is applied there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2psched.testing.sim_world import World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer


class Reads:
    """Of one process."""

    def __init__(self, peer: SimPeer, world: World) -> None:
        self._peer = peer
        self._world = world
        self._waiting: list[tuple[int, int]] = []  # index to apply first, tag

    def on_index(self, tag: int, index: int | None) -> None:
        """What the engine says to a read; None: no quorum."""
        if index is None:
            self._world.on_read(tag, None)
            return
        self._waiting.append((index, tag))
        self.answer()

    def answer(self) -> None:
        """Those whose index is applied; the others wait."""
        applied = self._peer.scheduler.machine.applied_index
        ready = [read for read in self._waiting if read[0] <= applied]
        self._waiting = [read for read in self._waiting if read[0] > applied]
        for index, tag in ready:
            self._world.on_read(tag, index)

"""The syncs of a simulated peer's disk: one at a time; what comes meanwhile waits for the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.core.raft.effects import Persist, Synced
from p2psched.core.raft.engine import EngineEffect
from p2psched.testing.sim_items import SyncEnds
from p2psched.testing.sim_world import PowerLostError, World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

QUICKEST_US: Final = 80


class Syncs:
    """Of one process."""

    def __init__(self, peer: SimPeer, world: World) -> None:
        self._peer = peer
        self._world = world
        self._persists: list[Persist] = []  # not yet written
        self._token = 0  # of the newest write; it is synced when the running sync ends
        self._took_us = 0
        self._under_way = False

    def write(self, persist: Persist) -> None:
        self._persists.append(persist)
        self.go_on()

    def go_on(self) -> None:
        """Write what waits, unless a sync is under way or there is no space: then the clock tries
        again."""
        if self._under_way or not (count := self._peer.space.write(self._persists)):
            return
        self._token = self._persists[count - 1].token
        del self._persists[:count]
        self._under_way = True
        # Most syncs are quick, a few take as long as the disk at its worst.
        drawn_us = int(self._world.rng.random() ** 4 * self._world.faults.sync_us_max)
        self._took_us = QUICKEST_US + drawn_us + self._peer.slow_sync_us
        self._world.on_synced(self._took_us)
        self._world.later(self._took_us, self._peer, SyncEnds())

    def end(self) -> list[EngineEffect]:
        """The sync that was under way ends. `go_on` when what follows from it is done."""
        self.durable_point()
        if self._world.crashes_here(self._world.faults.sync_fails):
            self._peer.disk.fail_next_sync = True
        self._peer.log.sync()
        self.durable_point()
        self._under_way = False
        took_ms = self._took_us / 1000
        return self._peer.engine.step(Synced(self._peer.now_ms, self._token, took_ms))

    def durable_point(self) -> None:
        if self._world.crashes_here(self._world.faults.crash_at_disk):
            raise PowerLostError

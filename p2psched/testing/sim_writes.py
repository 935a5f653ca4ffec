"""What a simulated peer writes to its log, and the errors and losses of power that meet it.

What `peer.log_writer` is with asyncio: writes that come while a sync runs wait for the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.core.raft.effects import Persist, Synced
from p2psched.core.raft.engine import EngineEffect
from p2psched.model.raft import Entry, HardState
from p2psched.store.log import LogStore, Recovered
from p2psched.store.persist import perform
from p2psched.store.regain import open_or_regain
from p2psched.store.space import NoRoom, space_or_not
from p2psched.testing.sim_items import SyncEnds
from p2psched.testing.sim_world import PowerLostError, World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

QUICKEST_US: Final = 80  # of a sync
SHORT_BYTES_MAX: Final = 200  # of a write that fails, at most so many get to the disk


class Writes:
    """Of one process."""

    def __init__(self, peer: SimPeer, world: World) -> None:
        self._peer = peer
        self._world = world
        self._persists: list[Persist] = []  # not yet written
        self._token = 0  # of the newest write; it is synced when the running sync ends
        self._took_us = 0
        self._syncing = False
        self.is_damaged = False  # in a place that a start could do without
        self.log: LogStore

    def open(self, segment_bytes_max: int) -> Recovered:
        """Raises OSError, PowerLostError, or Damaged."""
        world, disk = self._world, self._peer.disk
        if world.crashes_here(world.faults.read_fails):
            world.happened["read failed"] += 1
            disk.fail_next_read = True
        peer = self._peer
        self.log, recovered = open_or_regain(
            disk, has_others=peer.is_hurt, segment_bytes_max=segment_bytes_max
        )
        disk.fail_next_read = False
        peer.is_hurt = recovered.lost is not None
        self.is_damaged = bool(recovered.damaged)
        world.disks.on_recovered(self._peer.id, recovered)
        return recovered

    def found(self, hard_state: HardState, entries: list[Entry]) -> None:
        """What the disk of a founder begins with."""
        disks, peer = self._world.disks, self._peer.id
        disks.on_writing(peer, Persist(0, hard_state, None, tuple(entries)))
        self.log.write(hard_state=hard_state, truncate_from=None, entries=entries)
        self.log.sync()
        disks.on_synced(peer)

    def persist(self, persist: Persist) -> None:
        self._persists.append(persist)
        self.go_on()

    def go_on(self) -> None:
        """Write what waits, unless a sync runs. What finds no space is tried again by the clock."""
        world, peer = self._world, self._peer
        if self._syncing or not (count := self._write_all()):
            return
        self._token = self._persists[count - 1].token
        del self._persists[:count]
        self._syncing = True
        # Most syncs are quick, a few take as long as the disk at its worst.
        drawn_us = int(world.rng.random() ** 4 * world.faults.sync_us_max)
        self._took_us = QUICKEST_US + drawn_us + peer.slow_sync_us
        world.on_synced(self._took_us)
        world.later(self._took_us, peer, SyncEnds())

    def _write_all(self) -> int:
        """As many as find space."""
        self._peer.space.stalled = False
        for count, persist in enumerate(self._persists):
            self.durable_point()
            try:
                self._write(persist)
            except NoRoom:
                self._world.disks.on_refused(self._peer.id, persist)
                self._peer.space.stalled = True
                return count
            self.durable_point()
        return len(self._persists)

    def _write(self, persist: Persist) -> None:
        world, peer = self._world, self._peer
        if world.crashes_here(world.faults.write_fails):
            world.happened["write cut short"] += 1
            peer.disk.short_write = world.rng.randrange(SHORT_BYTES_MAX)
        world.disks.on_writing(peer.id, persist)
        if persist.install is None:
            perform(self.log, persist)
            return
        with peer.saves.power_may_go(chance=True):
            perform(self.log, persist)
        world.disks.on_reset(peer.id, persist.install)

    def end_sync(self) -> list[EngineEffect]:
        world, peer = self._world, self._peer
        self.durable_point()
        if world.crashes_here(world.faults.sync_fails):
            world.happened["sync failed"] += 1
            peer.disk.fail_next_sync = True
        self.log.sync()
        world.disks.on_synced(peer.id)
        self.durable_point()
        self._syncing = False
        return peer.engine.step(Synced(peer.now_ms, self._token, self._took_us / 1000))

    def mark(self) -> None:
        """The marker follows the synced end, at each look at the time."""
        with space_or_not():
            self.log.mark_end()

    def durable_point(self) -> None:
        share = self._world.faults.crash_at_disk
        if share and self._world.crashes_here(share):
            raise PowerLostError

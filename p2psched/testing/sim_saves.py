"""The snapshots that a simulated peer makes, and those that it sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from p2psched.core import snapshot as whole
from p2psched.core.capture import Capture
from p2psched.core.raft.effects import Compact, Installed, SendPiece, SnapshotSaved
from p2psched.core.raft.engine import EngineEffect
from p2psched.core.scheduler import Restored
from p2psched.core.snapshot import encode_machine
from p2psched.model.execution import Committed
from p2psched.model.raft import Snapshot, SnapshotPiece
from p2psched.store.snapshots import described
from p2psched.store.space import is_no_space
from p2psched.testing.promises import demand
from p2psched.testing.sim_items import SaveEnds, encode_wire
from p2psched.testing.sim_world import Damage, World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

SAVE_US_MAX: Final = 30_000  # from the state in memory to the snapshot on the disk
PATIENCE: Final = 4  # times as many entries as usual, if a follower takes one meanwhile
CAPTURED_EVERY: Final = 4  # entries; of the snapshots at them it is looked whether a capture holds
DISK_STEPS_MAX: Final = 8  # of a long operation, at one of which the power may go


class Saves:
    """Of one process."""

    def __init__(self, peer: SimPeer, world: World) -> None:
        self._peer = peer
        self._world = world
        self._under_way = False
        self._capture: tuple[Capture, bytes] | None = None  # and what it must come to

    def before(self, batches: tuple[Committed, ...]) -> None:
        """These are applied next."""
        if self._capture is not None:
            self._capture[0].before(batches)

    def begin_if_due(self) -> None:
        every = self._world.snapshots.every
        if not every or self._under_way:
            return
        engine = self._peer.engine
        newest = engine.raft.state.snapshot
        since = engine.delivered - (newest.index if newest is not None else 0)
        if since < every:
            return
        if engine.raft.sends_snapshot:
            assert newest is not None
            # As with real peers, or one that is made faster than it can be sent would starve whom
            # it is for.
            if engine.bytes_since_snapshot < newest.size:
                return
            since //= PATIENCE
        head = engine.describe() if since >= every else None
        if head is None:
            return
        machine = self._peer.scheduler.machine
        assert machine.applied_index == head.index
        self._under_way = True
        state = encode_machine(machine)
        if head.index % CAPTURED_EVERY == 0:
            self._capture = Capture(machine), whole.encode_machine(machine)
        snapshot = described(head, state)
        self._world.on_saving(self._peer, snapshot)
        delay_us = 1 + self._world.rng.randrange(SAVE_US_MAX)
        self._world.later(delay_us, self._peer, SaveEnds(snapshot, state))

    def end(self, snapshot: Snapshot, state: bytes) -> list[EngineEffect]:
        """It is on the disk, and the log may let go of what it covers."""
        peer = self._peer
        captured, self._capture = self._capture, None
        if captured is not None:
            taken = b"".join(captured[0].pieces())
            demand(taken == captured[1], "P14", "a capture is not the state of its start")
        peer.writes.durable_point()
        self._under_way = False
        try:
            with self.power_may_go(chance=True):
                peer.log.snapshots.save(snapshot, state)
        except OSError as error:
            if not is_no_space(error):
                raise
            return []  # another one later
        return peer.engine.step(SnapshotSaved(peer.now_ms, snapshot))

    def perform(self, effect: SendPiece | Installed | Compact) -> None:
        log = self._peer.log
        match effect:
            case SendPiece():
                self._send_piece(effect)
            case Installed(snapshot=snapshot):
                self.restore(snapshot, log.snapshots.read(snapshot.index)[1], None)
                self._peer.reads.answer()
            case Compact():
                with self.power_may_go(chance=True):
                    log.compact()

    def restore(self, snapshot: Snapshot, state: bytes | memoryview, damaged: Damage) -> None:
        self._peer.decide(Restored(self._peer.now_ms, state))
        self._world.on_restored(self._peer, snapshot, damaged)

    def _send_piece(self, effect: SendPiece) -> None:
        world, files = self._world, self._peer.log.snapshots
        if world.crashes_here(world.faults.read_fails):
            world.happened["read failed"] += 1
            self._peer.disk.fail_next_read = True
        data = files.read_piece(effect.snapshot, effect.offset, effect.size)
        self._peer.disk.fail_next_read = False
        if data is not None:
            piece = SnapshotPiece(effect.term, effect.round, effect.snapshot, effect.offset, data)
            world.send(self._peer, effect.to, encode_wire(piece))

    @contextmanager
    def power_may_go(self, *, chance: bool) -> Iterator[None]:
        """Perhaps, somewhere between two steps of the disk."""
        world, disk = self._world, self._peer.disk
        may = chance and world.crashes_here(world.faults.crash_at_disk)
        if may:
            disk.steps_left = 1 + world.rng.randrange(DISK_STEPS_MAX)
        yield
        if may:
            disk.steps_left = None

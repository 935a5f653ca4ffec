"""A full disk of a simulated peer: what `peer.space` and `peer.log_writer` are with asyncio."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from p2psched.core.leasing import HoldLease
from p2psched.core.owner import Owner, StopBatch, TakeBack
from p2psched.core.pacing import EndTask
from p2psched.core.raft.effects import RoomChanged
from p2psched.core.raft.engine import EngineEffect
from p2psched.core.scheduler import Clocked, Renewed, RenewIncarnation, YieldLead
from p2psched.core.scheduler_events import Noticed, Tend
from p2psched.core.separation_effects import SeparationEffect
from p2psched.model.execution import Batch
from p2psched.model.ids import PeerId
from p2psched.model.load import Seen
from p2psched.model.raft import Room
from p2psched.store.space import is_no_space
from p2psched.testing.sim_drains import is_drained
from p2psched.testing.sim_items import HandOverHere
from p2psched.testing.sim_world import World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

Change = (
    RenewIncarnation
    | YieldLead
    | StopBatch
    | TakeBack
    | EndTask
    | HoldLease
    | Tend
    | Noticed
    | SeparationEffect
)
LEFT_BYTES_MAX: Final = 4_000  # on a disk that gets full: for some entries, or for none


class SimSpace:
    """Of one process."""

    def __init__(self, peer: SimPeer, world: World) -> None:
        self._peer = peer
        self._world = world
        self.stalled = False  # a write waits for space
        self.shun: frozenset[PeerId] = frozenset()  # as gossip says
        self.seen: Mapping[PeerId, Seen] = {}  # likewise
        self._renews = False  # as soon as there is space

    @property
    def id(self) -> PeerId:
        return self._peer.id

    @property
    def owner(self) -> Owner:
        return self._peer.scheduler.owner

    @property
    def cursor(self) -> int:
        return 0

    def clocked(self, now_ms: int) -> Clocked:
        engine = self._peer.engine
        self._peer.notes.mark(self._world.now_us, self._peer.scheduler.separation.away_ms)
        led = engine.raft.leader_is_live()
        self._world.cutoff.on_clock(self.id, self._world.now_us, led=led)
        return Clocked(
            *(now_ms, engine.contacts(), engine.raft.full_members()),
            group=engine.raft.membership,
            is_led=led,
            removed=engine.raft.removed,
            shun=self.shun,
            seen=self.seen,
        )

    def start(self, batch: Batch) -> None:
        """The grant may have come since the last look at the time, and with it the word of a
        majority."""
        peer = self._peer
        if not (peer.leaving or is_drained(peer)):
            peer.last_batch = batch.id
        if self._peer.engine.raft.leader_is_live():
            self._world.cutoff.on_clock(self.id, self._world.now_us, led=True)
        peer.executor.start(batch)

    def change(self, effect: Change) -> None:
        """What its scheduler wants of it, besides work."""
        peer = self._peer
        match effect:
            case RenewIncarnation():
                self.renew()
            case YieldLead(avoid=avoid):
                self._world.later(1, peer, HandOverHere(avoid))
            case StopBatch() | HoldLease() | TakeBack() | EndTask():
                peer.executor.change(effect)
            case Tend() | Noticed():
                self._world.stalls.attend(peer, effect)
            case _:
                peer.notes.perform(effect, self, self._world.cutoff)

    def renew(self) -> None:
        """Take the next incarnation, now or when there is space for it."""
        peer = self._peer
        try:
            incarnation = peer.next_incarnation()
        except OSError as error:
            if not is_no_space(error):
                raise
            self._renews = True
        else:
            self._renews = False
            peer.decide(Renewed(peer.now_ms, incarnation))

    def look(self) -> list[EngineEffect]:
        """Tell the ledger what the disk takes, if that has changed."""
        peer = self._peer
        if self._renews:
            self.renew()
        room = Room.LOW if peer.disk.free_bytes is not None else Room.ENOUGH
        room = Room.NONE if self.stalled else room
        if room is peer.engine.raft.room:
            return []
        return peer.engine.step(RoomChanged(peer.now_ms, room))


def fill(peer: SimPeer, rng: random.Random) -> None:
    """From now on its disk takes no large results; of all else as ever, which nobody notices before
    a task ends so, or little, or nothing."""
    peer.is_full = True
    peer.disk.free_bytes = rng.choice((None, 0, rng.randrange(LEFT_BYTES_MAX)))


def empty(peer: SimPeer) -> None:
    peer.is_full = False
    peer.disk.free_bytes = None

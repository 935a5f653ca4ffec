"""The lives of simulated peers: how their processes end, sleep and start again, and how a disk is
lost. `SimCluster` is this and the events around it.

A peer whose disk is lost, or was found to be damaged, comes back as somebody whom nobody knows
(P10, P13). That may happen to a minority of the voters only: more is a loss that nobody survives.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from p2psched.model.errors import Damaged, Refused
from p2psched.model.ids import PeerId, new_id
from p2psched.store.space import is_no_space
from p2psched.testing.faults import Faults
from p2psched.testing.referees import Referees
from p2psched.testing.sim_callers import Callers
from p2psched.testing.sim_hurt import Hurt
from p2psched.testing.sim_items import Arrived, Item
from p2psched.testing.sim_jobs import KilledByTaskError
from p2psched.testing.sim_leading import leave
from p2psched.testing.sim_levels import upgrade_stopped
from p2psched.testing.sim_net import SimNetwork
from p2psched.testing.sim_peer import INCARNATION_FILE, SimPeer
from p2psched.testing.sim_rot import damage
from p2psched.testing.sim_space import empty
from p2psched.testing.sim_world import PowerLostError

FULL_MS: Final = 300  # a peer that found its disk full is started again after so long
BACKLOG_MAX: Final = 5_000  # of a paused peer; further messages to it are lost
START_STEPS_MAX: Final = 12  # of the disk, at one of which the power may go
VOTERS_MIN: Final = 3  # fewer can't miss any

Act = Callable[[], None]


class Lives(ABC):
    """Peers and what happens to them. What stands here without a value is the cluster's."""

    rng: random.Random
    faults: Faults
    happened: Counter[str]
    referees: Referees
    callers: Callers
    network: SimNetwork
    peers: list[SimPeer]
    now_us: int
    away_ms: int | None
    _hurt: Hurt

    def __init__(self) -> None:
        self._down: set[int] = set()  # peers that stay down until `start`
        self._lost: set[PeerId] = set()  # identities whose disks are gone
        self._by_id: dict[PeerId, SimPeer] = {}

    @abstractmethod
    def after(self, delay_ms: float, act: Act) -> None: ...

    @abstractmethod
    def bring(self, delay_us: int, number: int, process: int, item: Item) -> None: ...

    @abstractmethod
    def later(self, delay_us: int, peer: SimPeer, item: Item) -> None: ...

    @abstractmethod
    def _perform(self, peer: SimPeer, item: Item) -> None: ...

    # --- ends ---

    def crash(self, number: int, *, power_lost: bool | None = None) -> None:
        """End a process at once; it starts again by itself. `power_lost` None: drawn."""
        peer = self.peers[number]
        if not peer.alive:
            return
        if power_lost is None:
            power_lost = self.rng.random() < self.faults.power_loss
        self.happened["power lost" if power_lost else "killed"] += 1
        self.referees.on_crash(peer)
        self._end(peer, power_lost=power_lost)

    def _end(self, peer: SimPeer, *, power_lost: bool, again_ms: float = 1) -> None:
        peer.die(power_lost=power_lost)
        share = self.rng.random() ** 2  # more often soon than late
        self.after(again_ms + share * self.faults.restart_ms_max, self._starter(peer))

    def _end_by(self, peer: SimPeer, error: Exception) -> None:
        """What a process does when this is raised in it. Raises what must not happen to it."""
        match error:
            case PowerLostError():
                self.happened["crashed at the disk"] += 1
                self.referees.look_at(peer)  # what it said before it crashed, it said
                self.crash(peer.number)
            case KilledByTaskError():
                self.happened["killed by a task"] += 1
                self.referees.on_crash(peer)
                self._end(peer, power_lost=False)
            case OSError() if is_no_space(error):
                self.happened["stopped by a full disk"] += 1
                self.referees.on_crash(peer)
                self._end(peer, power_lost=False, again_ms=FULL_MS)
            case OSError():
                self.happened["stopped by its disk"] += 1
                self.crash(peer.number, power_lost=True)
            case Refused():
                upgrade_stopped(self, peer)
            case Damaged() if peer.is_rotten:  # what is left of it the next start will say
                self.happened["stopped by damage"] += 1
                self.referees.on_crash(peer)
                self._end(peer, power_lost=False)
            case _:
                raise error

    def _on_damaged(self, peer: SimPeer, error: Damaged) -> None:
        """It can't start, and says so; whoever runs it gives it an empty disk."""
        if not peer.is_rotten:
            raise error
        self.happened["damage found"] += 1
        self.referees.on_crash(peer)
        self._lose_disk(peer)

    def kill(self, number: int) -> None:
        """Crash a process that stays away until `start`."""
        self._down.add(number)
        self.crash(number, power_lost=False)

    def leave(self, number: int) -> None:
        """Stop a process cleanly: it gives back its tasks and its lead first, if it can, and starts
        again by itself unless it was killed before."""
        peer = self.peers[number]
        if not peer.alive or peer.paused or peer.leaving:
            return
        leave(self, peer, lambda: self._end(peer, power_lost=False))

    # --- starts ---

    def start(self, number: int) -> None:
        """Start a peer that is down."""
        self._down.discard(number)
        self.after(1, self._starter(self.peers[number]))

    def _starter(self, peer: SimPeer) -> Act:
        def start() -> None:
            if peer.alive or peer.number in self._down:
                return
            if self._hurt.may_hurt(peer, self.peers, self.faults):
                self.happened["logs damaged"] += 1
            if self.crashes_here(self.faults.crash_starting):
                peer.disk.steps_left = self.rng.randrange(1, START_STEPS_MAX)
            try:
                peer.boot()
            except Damaged as error:
                self._on_damaged(peer, error)
            except (OSError, PowerLostError, Refused) as error:
                self.happened["crashed while starting"] += not isinstance(error, Refused)
                self._end_by(peer, error)
            else:
                peer.disk.steps_left = None
                peer.is_rotten = peer.writes.is_damaged  # a snapshot that another stood in for
                self.referees.look_at(peer)

        return start

    def crashes_here(self, share: float) -> bool:
        """Draw one chance of a crash; never beyond `Faults.crashes_max` crashes in all."""
        if not share or self.rng.random() >= share:
            return False
        return self.happened["power lost"] + self.happened["killed"] < self.faults.crashes_max

    # --- sleeps ---

    def pause(self, number: int, duration_ms: int) -> None:
        """Stop a process as SIGSTOP does: what comes meanwhile waits, then comes at once."""
        self._sleep(number, duration_ms, "paused")

    def suspend(self, number: int, duration_ms: int) -> None:
        """Stop a whole machine, as closing a lid does: what is sent to it is lost, its timers
        stand still, and its boot clock is found to have gone on."""
        peer = self.peers[number]
        if peer.alive and not peer.paused:
            peer.suspended_us = self.now_us
        self._sleep(number, duration_ms, "suspended")

    def _sleep(self, number: int, duration_ms: int, what: str) -> None:
        peer = self.peers[number]
        if not peer.alive or peer.paused:
            return
        self.happened[what] += 1
        peer.paused = True
        process = peer.process
        self.after(duration_ms, lambda: self.resume(number) if peer.process == process else None)

    def _while_asleep(self, peer: SimPeer, item: Item) -> None:
        is_message = isinstance(item, Arrived)
        if peer.suspended_us is not None and is_message:
            self.happened["lost in sleep"] += 1
        elif len(peer.backlog) < BACKLOG_MAX or not is_message:
            peer.backlog.append((self.now_us, item))

    def resume(self, number: int) -> None:
        peer = self.peers[number]
        if not peer.paused:
            return
        peer.paused = False
        backlog, peer.backlog = peer.backlog, []
        began_us, peer.suspended_us = peer.suspended_us, None
        if began_us is not None:
            peer.watch.wake(self.now_us - began_us)
            for at_us, item in backlog:  # what was left of each timer is still to come
                self.later(at_us - began_us, peer, item)
            return
        items = [item for _, item in backlog]
        if self.rng.random() < 0.5:  # a loop may look at its timers before its sockets
            items.sort(key=lambda item: isinstance(item, Arrived))
        process = peer.process
        for item in items:
            if peer.process == process:
                self._perform(peer, item)

    # --- disks ---

    def wipe(self, number: int) -> bool:
        """Lose a whole disk, if the cluster can bear it. The peer comes back as another."""
        peer = self.peers[number]
        if not self._may_lose(peer):
            return False
        self.happened["disk wiped"] += 1
        if peer.alive:
            self.referees.on_crash(peer)
        self._lose_disk(peer)
        return True

    def _lose_disk(self, peer: SimPeer) -> None:
        if peer.alive:
            peer.die(power_lost=False)
        self._lost.add(peer.id)
        self.referees.cutoff.on_lost(peer.id)
        del self._by_id[peer.id]
        for digest in peer.blobs:
            peer.blobs[digest] = False
        peer.begin_anew(PeerId(new_id(self.rng)))
        self._by_id[peer.id] = peer
        self.referees.keeping.disks[peer.id] = peer.blobs
        share = self.rng.random() ** 2
        self.after(1 + share * self.faults.restart_ms_max, self._starter(peer))

    def retire(self, number: int) -> None:
        """Lose the disk of a peer that was removed. It comes back as another."""
        peer = self.peers[number]
        self.happened["members replaced"] += 1
        if peer.alive:
            self.referees.on_crash(peer)
        self._lose_disk(peer)

    def rot(self, number: int) -> bool:
        """Damage durable bytes of a disk, if the cluster can bear it. Found when they are read."""
        peer = self.peers[number]
        if not peer.disk.has_power or (not peer.is_rotten and not self._may_lose(peer)):
            return False
        kind = damage(peer.disk, self.rng, spare=INCARNATION_FILE)
        if kind is not None:
            self.happened[kind] += 1
            peer.is_rotten = True
        return kind is not None

    def _may_lose(self, peer: SimPeer) -> bool:
        """True if a majority of the voters would keep their disks: of those that are committed, and
        of those that a leader has begun to have instead, for it may take that along. Damage that
        waits to be found is on one disk, where there may be fewer voters by then. A learner counts:
        a leader that hasn't missed it yet may make it a voter. So does a peer that is no member yet
        while a voter is missed: it may be the next that votes."""
        if self.away_ms is not None and any(p.is_rotten for p in self.peers if p is not peer):
            return False
        known: Sequence[SimPeer] = [p for p in self.peers if p.alive]
        newest = max(known, key=lambda p: p.engine.raft.commit, default=None)
        if newest is None:
            return False
        lost = self._lost | {p.id for p in self.peers if p.is_rotten} | {peer.id}
        leaders = [p for p in known if p.engine.raft.is_leader]  # one may know as much committed
        begun = [p.engine.raft.membership for p in (newest, *leaders)]
        for membership in (self.referees.members.newest, *begun):
            voters = {member.peer for member in membership.voters}
            if len(voters) < VOTERS_MIN or not voters <= {*self._by_id, *self._lost}:
                return False
            members = voters | {member.peer for member in membership.learners}
            if voters & lost - {peer.id}:
                members |= {peer.id}
            if len(members & lost) > (len(voters) - 1) // 2:
                return False
        return True

    def heal_peers(self) -> None:
        """Every peer is up and finds room."""
        self._down.clear()
        for peer in self.peers:
            empty(peer)
            peer.slow_sync_us = 0
            self.resume(peer.number)
            self.after(1, self._starter(peer))

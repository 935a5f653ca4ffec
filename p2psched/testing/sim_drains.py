"""Peers of a simulated cluster that are drained, and some of them taken back, at drawn moments.

Most are stopped or killed meanwhile by whatever else goes wrong. When faults end, a few stay
drained, as many as leave somebody to run what is left.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from p2psched.core.drain import is_draining
from p2psched.model.commands import Drain, DrainMode
from p2psched.model.ids import PeerId
from p2psched.testing.faults import Faults

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster
    from p2psched.testing.sim_peer import SimPeer
    from p2psched.testing.sim_world import Process

MODES: Final = (DrainMode.ON, DrainMode.ON, DrainMode.ONCE, DrainMode.OFF, DrainMode.OFF)
LOOK_MS: Final = 2_000  # between two looks whether somebody takes tasks


def with_drains(faults: Faults, seed: int) -> Faults:
    """Drawn apart: all else of the seed is drawn as without."""
    rng = random.Random(f"drain rates {seed}")
    return replace(faults, drain_every_ms=rng.choice((0, 0, 400, 2_000)))


class Draining:
    """While the cluster's faults last."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"drains {cluster.seed}")
        self._faults = cluster.faults
        if self._faults.drain_every_ms:
            self._later()

    def _later(self) -> None:
        self._cluster.after(self._rng.expovariate(1 / self._faults.drain_every_ms), self._again)

    def _again(self) -> None:
        if self._cluster.faults is self._faults:  # healed otherwise
            all_peers: list[Process] = [*self._cluster.peers, *self._cluster.guests.values()]
            self._ask(self._rng.choice(all_peers).id, self._rng.choice(MODES))
            self._later()

    def _ask(self, peer: PeerId, mode: DrainMode) -> None:
        cluster = self._cluster
        if peer in cluster.referees.shadow.live:  # else nobody knows of it, perhaps for ever
            cluster.happened[f"drain {mode.name.lower()}"] += 1
            cluster.ask(Drain(peer, mode))

    def end(self) -> None:
        """Somebody takes tasks from here on."""
        if self._faults.drain_every_ms:
            peers = self._cluster.peers
            for peer in self._rng.sample(peers, self._rng.randint(1, len(peers))):
                self._ask(peer.id, DrainMode.OFF)
            self._cluster.after(LOOK_MS, self._look)

    def _look(self) -> None:
        """What was asked before may have been committed only now."""
        if all(map(is_drained, self._cluster.peers)):
            self._ask(self._rng.choice(self._cluster.peers).id, DrainMode.OFF)
        self._cluster.after(LOOK_MS, self._look)

    @property
    def is_busy(self) -> bool:
        """A drained peer leads, and another voter is there that is not drained."""
        return any(
            peer.alive and peer.engine.raft.is_leader and is_drained(peer) and self._others(peer)
            for peer in self._cluster.peers
        )

    def _others(self, leader: SimPeer) -> bool:
        voters = {member.peer for member in leader.engine.raft.membership.voters}
        return any(
            peer.id in voters and not is_drained(peer)
            for peer in self._cluster.peers
            if peer is not leader
        )


def is_drained(process: Process) -> bool:
    return is_draining(process.state, process.id)

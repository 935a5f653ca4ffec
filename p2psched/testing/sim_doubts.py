"""What gossip tells simulated peers of each other: anything, at drawn moments.

Gossip itself is simulated elsewhere (`gossip_sim`). Nothing that must hold may rest on it, so here
it is old, wrong, or a lie: some are doubted that live, and others not that are gone. When faults
end, nobody is doubted.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from p2psched.testing.faults import Faults

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster
    from p2psched.testing.sim_world import Process


def with_doubts(faults: Faults, seed: int) -> Faults:
    """Drawn apart: all else of the seed is drawn as without."""
    rng = random.Random(f"doubt rates {seed}")
    return replace(faults, doubt_every_ms=rng.choice((0, 0, 200, 1_500)))


class Doubts:
    """While the cluster's faults last."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"doubts {cluster.seed}")
        self._faults = cluster.faults
        if self._faults.doubt_every_ms:
            self._later()

    def _later(self) -> None:
        self._cluster.after(self._rng.expovariate(1 / self._faults.doubt_every_ms), self._again)

    def _again(self) -> None:
        cluster, rng = self._cluster, self._rng
        if cluster.faults is self._faults:  # healed otherwise
            peer = rng.choice(cluster.peers)
            others: list[Process] = [*cluster.peers, *cluster.guests.values()]
            known = [other.id for other in others]
            peer.space.shun = frozenset(rng.sample(known, rng.randint(0, len(known))))
            cluster.happened["doubts"] += bool(peer.space.shun)
            self._later()

    def end(self) -> None:
        for peer in self._cluster.peers:
            peer.space.shun = frozenset()

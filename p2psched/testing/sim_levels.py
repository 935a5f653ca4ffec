"""Peers of a simulation that are upgraded one by one: see `core.levels`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2psched.core.levels import KNOWN_LEVEL

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster
    from p2psched.testing.sim_lives import Lives
    from p2psched.testing.sim_peer import SimPeer

NEWER_LEVEL: Final = KNOWN_LEVEL + 1  # of a version that is not written yet
UPGRADE_MS_MAX: Final = 8_000


def upgrade(cluster: SimCluster, peer: SimPeer) -> None:
    """Stop a peer cleanly; its next process is of the newer version."""
    cluster.happened["upgraded"] += 1
    peer.level = NEWER_LEVEL
    cluster.leave(peer.number)


def upgrade_stopped(cluster: Lives, peer: SimPeer) -> None:
    """A peer has stopped because the ledger uses what its version doesn't know."""
    cluster.happened["stopped by its level"] += 1
    peer.level = NEWER_LEVEL
    cluster.crash(peer.number, power_lost=False)


def start_upgrades(cluster: SimCluster) -> None:
    """In some seeds all peers are upgraded at drawn moments, some after the ledger needs it. Drawn
    apart: all else of the seed is drawn as without."""
    rng = random.Random(f"levels {cluster.seed}")
    if rng.random() < 0.5:
        return
    for peer in cluster.peers:
        cluster.after(rng.randrange(1, UPGRADE_MS_MAX), _upgrader(cluster, peer))


def _upgrader(cluster: SimCluster, peer: SimPeer) -> Callable[[], None]:
    return lambda: upgrade(cluster, peer)

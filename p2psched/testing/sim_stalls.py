"""What makes work of a simulated peer stand still, in some seeds, though nothing is wrong that
anybody else could see: a wake-up that is missed, workers that begin nothing, batches and grants
that are forgotten. Its watchdog has to find each by itself, and heal it (`stall_referee`).
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from p2psched.core.owned import Queued
from p2psched.core.owner import Owner
from p2psched.model.execution import Tending
from p2psched.testing.faults import Faults
from p2psched.testing.sim_follower import SimFollower
from p2psched.testing.sim_peer import SimPeer

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

Anybody = SimPeer | SimFollower

BROKEN: Final = max(Tending) + 1  # no tending helps: only others can run what is there
BROKEN_MS_MAX: Final = 20_000
KINDS: Final = ("missed", "hosts", "all", "broken", "lost batch", "forgotten grant")
_STALLED: Final = {
    "missed": Tending.AGAIN,
    "hosts": Tending.HOSTS,
    "all": Tending.ALL,
    "broken": BROKEN,
}


def with_stalls(faults: Faults, seed: int) -> Faults:
    """Drawn apart: all else of the seed is drawn as without."""
    rng = random.Random(f"stall rates {seed}")
    return replace(faults, stall_every_ms=rng.choice((0, 0, 0, 1_000, 5_000)))


class Stalls:
    """While the cluster's faults last."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"stalls {cluster.seed}")
        self._faults = cluster.faults
        if self._faults.stall_every_ms:
            self._later()

    def _later(self) -> None:
        self._cluster.after(self._rng.expovariate(1 / self._faults.stall_every_ms), self._again)

    def _again(self) -> None:
        cluster, rng = self._cluster, self._rng
        if cluster.faults is not self._faults:  # healed
            return
        everybody: list[Anybody] = [*cluster.peers, *cluster.guests.values()]
        peer = rng.choice(everybody)
        if peer.alive and not peer.paused and plant(peer, kind := rng.choice(KINDS)):
            cluster.stalls.on_planted(peer, kind)
            if kind == "broken":
                cluster.after(rng.randrange(1, BROKEN_MS_MAX), partial(mend, peer))
        self._later()

    def end(self) -> None:
        """One peer may have to heal itself in the phase of peace. A job whose tasks run one by one
        could meet several of them there, one after another."""
        everybody: list[Anybody] = [*self._cluster.peers, *self._cluster.guests.values()]
        standing = [peer for peer in everybody if peer.alive and peer.executor.stalled]
        for peer in standing:
            mend(peer)
        for peer in [peer for peer in standing if peer.executor.stalled][1:]:
            wake(peer)


def owner_of(peer: Anybody) -> Owner:
    return peer.follower.owner if isinstance(peer, SimFollower) else peer.scheduler.owner


def plant(peer: Anybody, kind: str) -> bool:
    """False if there is nothing that could stand still so."""
    owner = owner_of(peer)
    match kind:
        case "lost batch":
            return peer.executor.lose_one()
        case "forgotten grant":
            first = owner.first
            if first is None or not _is_as_granted(peer, first):
                return False
            owner.set_aside([(0, len(first.tasks))])
        case _:
            peer.executor.stalled = max(peer.executor.stalled, _STALLED[kind])
    return True


def _is_as_granted(peer: Anybody, queued: Queued) -> bool:
    """Its tasks have had no attempt under this grant. What has had one, and is forgotten, would
    come back as its first once its peer is told anew what it owns: no forgotten grant, but a
    forgotten attempt."""
    job = peer.state.jobs.get(queued.job)
    if job is None or queued.begun:
        return False
    return all(attempt == queued.attempt for attempt, _ in job.attempts(queued.tasks))


def mend(peer: Anybody) -> None:
    """Whatever was broken in it begins again."""
    if peer.executor.stalled == BROKEN:
        wake(peer)


def wake(peer: Anybody) -> None:
    peer.executor.stalled = 0
    peer.executor.tend(Tending.AGAIN)

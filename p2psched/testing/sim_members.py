"""Members of a simulated cluster that are replaced, one at a time: the old identity is removed from
the group, and on an empty disk the peer comes back as somebody else.

Some lose their disks first, as whoever replaces a dead member finds it. Others are removed while
they work, the leader among them, and go on for a while with an identity that nobody wants.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from p2psched.core.levels import NEEDED
from p2psched.model.commands import ForgetPeer
from p2psched.model.ids import PeerId
from p2psched.testing.sim_group import bears
from p2psched.testing.sim_items import RemoveHere

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

DEAD_FIRST: Final = 0.4  # of the replacements
LEADER: Final = 0.4  # of the others: whoever leads
ASK_MS: Final = 50  # between two tries to remove it
LINGER_MS_MAX: Final = 3_000  # with the old identity, after it was removed
FORGOTTEN_MS: Final = 10_000  # until nobody who was removed is in the ledger any more
VOTERS_MIN: Final = 2  # of which one may be removed


class Replacing:
    """While the cluster's faults last; what has begun then is ended. Drawn apart: all else of the
    seed is drawn as without."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"replaces {cluster.seed}")
        self._faults = cluster.faults
        self._old: PeerId | None = None
        if self._faults.replace_every_ms:
            self._later()

    @property
    def is_busy(self) -> bool:
        return self._old is not None

    def _later(self) -> None:
        self._cluster.after(self._rng.expovariate(1 / self._faults.replace_every_ms), self._again)

    def _again(self) -> None:
        if self._cluster.faults is self._faults:  # healed otherwise
            if self._old is None:
                self._begin()
            self._later()

    def _begin(self) -> None:
        cluster, rng = self._cluster, self._rng
        dead_first = rng.random() < DEAD_FIRST
        number = rng.randrange(len(cluster.peers))
        leaders = [
            peer.number for peer in cluster.peers if peer.alive and peer.engine.raft.is_leader
        ]
        if not dead_first and leaders and rng.random() < LEADER:
            number = leaders[-1]
        old, members = cluster.peers[number].id, cluster.referees.members.newest
        is_last = members.is_voter(old) and len(members.voters) < VOTERS_MIN
        if members.member(old) is None or is_last or (dead_first and not cluster.wipe(number)):
            return
        self._old = old
        cluster.happened["leaders removed"] += number in leaders
        self._remove(old, number)

    def _remove(self, old: PeerId, number: int) -> None:
        cluster = self._cluster
        members = cluster.referees.members.newest
        if members.is_voter(old) and len(members.voters) == 1 and self._lives(old):
            self._old = None  # the last one by now: it stays
            return
        if members.member(old) is None:
            linger_ms = self._rng.random() ** 2 * LINGER_MS_MAX
            cluster.after(linger_ms, lambda: self._end(old, number))
            return
        for peer in cluster.peers:
            if peer.alive and peer.engine.raft.is_leader and bears(cluster, peer, old):
                cluster.bring(1, peer.number, peer.process, RemoveHere(old))
        cluster.after(ASK_MS, lambda: self._remove(old, number))

    def _lives(self, old: PeerId) -> bool:
        return any(peer.id == old for peer in self._cluster.peers)

    def _end(self, old: PeerId, number: int) -> None:
        self._old = None
        if self._cluster.peers[number].id == old:
            self._cluster.retire(number)


def await_forgotten(cluster: SimCluster) -> None:
    """Until the ledger knows of removed peers only that they were removed. Raises
    SimulationError."""
    gone = cluster.referees.members.gone.keys()
    machines = [peer.scheduler.machine for peer in cluster.peers]
    if gone and min(machine.level for machine in machines) >= NEEDED[ForgetPeer]:
        cluster.run_until(
            lambda: not any(gone & p.scheduler.machine.peers.keys() for p in cluster.peers),
            within_ms=FORGOTTEN_MS,
            every=25,
            promise="P13",
        )
        cluster.happened["removed peers forgotten"] += len(cluster.referees.shadow.gone)

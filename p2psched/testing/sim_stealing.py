"""What makes peers of a simulated cluster steal, in some seeds: work that somebody places badly,
and views of the others that are stale, wrong, or lies.

Nothing that is safe reads a view, so whatever stands in one may cost time and nothing else.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from p2psched.core.state import PeerRow
from p2psched.model.commands import Place
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport, Seen
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.shadow_job import WAITING

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

STALE: Final = 0.5  # of the looks
WRONG: Final = 0.1  # of what is seen then
VIEW_US: Final = 100_000  # between two looks
SEEN_MAX: Final = 16  # of the busiest, and in large groups a quarter: gossip names all


def with_stealing(faults: Faults, seed: int) -> Faults:
    """Drawn apart: all else of the seed is drawn as without."""
    rng = random.Random(f"misplacements {seed}")
    return replace(faults, misplace_every_ms=rng.choice((0, 0, 200, 1_000)))


class Misplacing:
    """While the cluster's faults last: all that waits of some job is one peer's."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"misplaces {cluster.seed}")
        self._faults = cluster.faults
        if self._faults.misplace_every_ms:
            self._later()

    def _later(self) -> None:
        every_ms = self._faults.misplace_every_ms
        self._cluster.after(self._rng.expovariate(1 / every_ms), self._again)

    def _again(self) -> None:
        if self._cluster.faults is self._faults:  # healed otherwise
            self._place()
            self._later()

    def _place(self) -> None:
        shadow = self._cluster.referees.shadow
        up = sorted(peer for peer, (_, is_up) in shadow.live.items() if is_up)
        for name, job in shadow.jobs.items():
            waiting = [i for i, owner in job.owner.items() if owner == WAITING]
            if up and len(waiting) > 1 and job.state == "running":
                peer = self._rng.choice(up)
                self._cluster.happened["badly placed"] += 1
                tasks = TaskSet.from_indices(waiting)
                self._cluster.ask(Place(name, tasks, peer, shadow.live[peer][0]))
                return


class Views:
    """What the followers of one cluster believe of the busiest others. Made once in a while for all
    of them: there may be a thousand."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"views {cluster.seed}")
        self._seen: Mapping[PeerId, Seen] = {}
        self._made_us = -VIEW_US

    def look(self, now_ms: int) -> Mapping[PeerId, Seen]:
        cluster, rng = self._cluster, self._rng
        if cluster.now_us - self._made_us >= VIEW_US:
            self._made_us = cluster.now_us
            if not self._seen or rng.random() >= STALE:
                self._seen = self._make(now_ms)
        return self._seen

    def _make(self, now_ms: int) -> Mapping[PeerId, Seen]:
        rng = self._rng
        teller = next((peer for peer in self._cluster.peers if peer.alive), None)
        rows = teller.state.peers.values() if teller is not None else ()
        wrong = WRONG if self._cluster.faults != Faults() else 0.0
        most = heapq.nlargest(max(SEEN_MAX, len(rows) // 4), rows, key=lambda row: row.load_us)
        return {
            row.info.peer: Seen(
                *(row.info.peer, row.info.incarnation, Liveness.ALIVE, now_ms),
                _lie(rng) if rng.random() < wrong else _report(row),
            )
            for row in most
        }


def _report(row: PeerRow) -> LoadReport:
    queue = max(0, row.owned - row.info.slots)
    return LoadReport(number=1, slots=row.info.slots, queue=queue, queue_us=row.load_us)


def _lie(rng: random.Random) -> LoadReport:
    queue = rng.choice((0, 1, 1_000))
    return LoadReport(number=1, slots=rng.randint(0, 4), queue=queue, queue_us=queue * 100_000)

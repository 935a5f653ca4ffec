"""How many tasks of which job each peer owns, and whose rows have changed since somebody looked.

Follows from the ledger's state. It is only kept where somebody wants it: where this peer
coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from p2psched.core.jobs import Job
from p2psched.model.ids import JobId, PeerId


class Ownings:
    def __init__(self, peers: Iterable[PeerId], jobs: Iterable[Job]) -> None:
        """`jobs`: all that have grants."""
        self.touched: dict[PeerId, None] = dict.fromkeys(peers)
        self._of: dict[JobId, dict[PeerId, int]] = {}
        for job in jobs:
            for held in (*job.grants.values(), *job.backups.values()):
                self.add(job.id, held.peer, len(held.tasks))

    def add(self, job: JobId, peer: PeerId, count: int) -> None:
        self.touched[peer] = None
        of = self._of.setdefault(job, {})
        owned = of.get(peer, 0) + count
        assert owned >= 0
        if owned:
            of[peer] = owned
        else:
            of.pop(peer, None)
            if not of:
                del self._of[job]

    def of(self, job: JobId) -> Mapping[PeerId, int]:
        return self._of.get(job, {})

"""What a simulated peer keeps on its disk for when it is cut off, over its processes, and what it
reports. In memory: that files are torn is tried with real ones (`tests/store`).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from p2psched.core.owner import Owner
from p2psched.core.scheduler_events import Began
from p2psched.core.separation_effects import (
    KeepOwned,
    KeepResults,
    Recalled,
    Reported,
    SeparationEffect,
    SpoolDecided,
    Spooled,
)
from p2psched.model.commands import SubmitJob
from p2psched.model.ids import JobId, PeerId, new_id
from p2psched.model.job import JobSpec
from p2psched.model.reconcile import KeptResult, Recollection, Reconciliation
from p2psched.model.taskset import TaskSet
from p2psched.testing.cutoff_referee import MARK, CutOffReferee
from p2psched.testing.faults import Faults
from p2psched.testing.sim_jobs import sim_job

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster
    from p2psched.testing.sim_peer import SimPeer

# How long peers go on without a majority: mostly too short to be of use, so that it ends.
SHARE: Final = 0.5  # of the seeds: somebody spools
EVERY_MS: Final = 1_500
JOBS_MAX: Final = 30
MAX_MS: Final = (2_000, 3_000, 6_000, 600_000)


class Notes:
    """Of one disk."""

    def __init__(self) -> None:
        self._owned = KeepOwned((), {}, 0, 0)
        self._cursor = 0
        self._heard = (0, 0)  # when it was marked last, and how long it was cut off then
        self.results: list[KeptResult] = []
        self.spool: dict[JobId, JobSpec] = {}
        self.reports: list[Reconciliation] = []

    def begin(self, world_us: int, now_ms: int) -> tuple[Recalled, Began] | tuple[Began]:
        """What a new process is told first."""
        kept = self._owned
        marked_us, away_ms = self._heard
        found = Recollection(
            away_ms=away_ms + (world_us - marked_us) // 1000,
            incarnation=kept.incarnation,
            since=kept.since,
            cursor=self._cursor,
            owned=kept.owned,
            results=tuple(self.results),
            specs=dict(kept.specs),
            spool=tuple(self.spool.items()),
        )
        if not (found.has_work or found.spool):
            return (Began(now_ms),)
        return Recalled(now_ms, found), Began(now_ms)

    def mark(self, world_us: int, away_ms: int) -> None:
        """So long no majority was heard, now."""
        self._heard = (world_us, away_ms)

    def perform(self, effect: SeparationEffect, peer: Noted, referee: CutOffReferee) -> None:
        match effect:
            case KeepOwned():
                self._owned, self._cursor = effect, peer.cursor
            case KeepResults(results=results, anew=anew):
                self.results = [] if anew else self.results
                self.results += results
                referee.on_kept(peer.id, results)
            case SpoolDecided(outcome=outcome):
                self.spool.pop(outcome.job, None)
            case Reported(report=report):
                self.results = []
                parts = peer.owner.outbox.parts()
                held = {(job, index, grant) for job, grant, tasks in parts for index in tasks}
                referee.on_reported(peer.id, report, held)
                self.reports.append(report)


class Noted(Protocol):
    """Whose disk it is."""

    @property
    def id(self) -> PeerId: ...
    @property
    def owner(self) -> Owner: ...
    @property
    def cursor(self) -> int:
        """How far it is fed, if it is."""
        ...


class Spoolers:
    """Callers that leave jobs with peers without a majority. Drawn apart."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._faults = cluster.faults
        self._rng = random.Random(f"spool {cluster.seed}")
        self._count = 0
        if self._rng.random() < SHARE and cluster.faults != Faults():
            self._later()

    def _later(self) -> None:
        self._cluster.after(self._rng.expovariate(1 / EVERY_MS), self._again)

    def _again(self) -> None:
        cluster = self._cluster
        if cluster.faults is not self._faults:
            return  # healed
        cut = [
            p for p in cluster.peers if p.alive and not p.paused and p.scheduler.separation.is_cut
        ]
        if cut and self._count < JOBS_MAX:
            self._spool(self._rng.choice(cut))
        self._later()

    def _spool(self, peer: SimPeer) -> None:
        for _ in range(self._rng.randint(1, 4)):
            self._count += 1
            job = JobId(new_id(self._rng))
            made = sim_job(TaskSet.of(0, 2), mean_us=20_000)
            spec = msgspec.structs.replace(made, submitter=f"{MARK}{self._count}")
            peer.notes.spool[job] = spec
            self._cluster.referees.cutoff.on_spooled(peer.id, SubmitJob(job, spec))
            self._cluster.happened["jobs spooled"] += 1
            peer.decide(Spooled(peer.now_ms, job, spec))


def max_disconnect_ms(seed: int) -> int:
    """Of all peers of a simulation. Drawn apart: all else is drawn as without."""
    return random.Random(f"cut off {seed}").choice(MAX_MS)

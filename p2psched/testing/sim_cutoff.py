"""What a simulated peer keeps on its disk for when it is cut off, over its processes, and what it
reports. In memory: that files are torn is tried with real ones (`tests/store`).
"""

from __future__ import annotations

import random
from typing import Final

from p2psched.core.scheduler_events import Began
from p2psched.core.separation_effects import (
    KeepOwned,
    KeepResults,
    Recalled,
    Reported,
    SeparationEffect,
    SpoolDecided,
)
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.reconcile import KeptResult, Recollection, Reconciliation

# How long peers go on without a majority: mostly too short to be of use, so that it ends.
MAX_MS: Final = (2_000, 3_000, 6_000, 600_000)


class Notes:
    """Of one disk."""

    def __init__(self) -> None:
        self._owned = KeepOwned((), {}, 0, 0)
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

    def perform(self, effect: SeparationEffect) -> None:
        match effect:
            case KeepOwned():
                self._owned = effect
            case KeepResults(results=results, anew=anew):
                self.results = [] if anew else self.results
                self.results += results
            case SpoolDecided(outcome=outcome):
                del self.spool[outcome.job]
            case Reported(report=report):
                self.results = []
                self.reports.append(report)


def max_disconnect_ms(seed: int) -> int:
    """Of all peers of a simulation. Drawn apart: all else is drawn as without."""
    return random.Random(f"cut off {seed}").choice(MAX_MS)

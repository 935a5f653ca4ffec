"""Jobs that were submitted to a peer without a majority, on their way to the ledger.

They wait on its disk, in order. Once a majority is heard they are proposed under the ids that their
callers chose, so that the ledger takes each once however often it is proposed; a round of them at a
time, and in a round all are in one append. None leaves the disk before its outcome is known.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from p2psched.core.life import Life
from p2psched.core.separation_effects import SpoolDecided
from p2psched.model.commands import Outcome, Rejected, SubmitJob, Submitted
from p2psched.model.errors import Unavailable
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.reconcile import SpoolOutcome

ROUND_MAX: Final = 16
AGAIN_MS: Final = 1_000  # after the ledger had no room for one


class Spooling:
    def __init__(self, life: Life) -> None:
        self._life = life
        self._waiting: dict[JobId, JobSpec] = {}  # in order
        self._in_flight: dict[JobId, JobSpec] = {}
        self._again: dict[JobId, JobSpec] = {}  # of this round: the ledger had no room
        self._not_before_ms = 0
        self._now_ms = 0
        self.decided: list[SpoolDecided] = []  # since somebody took them

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight) + len(self._again)

    def add(self, job: JobId, spec: JobSpec) -> None:
        """It is on the disk."""
        if job not in self._in_flight:
            self._waiting[job] = spec

    def remove(self, job: JobId) -> bool:
        """Its caller wants it no more. False if it is on its way, or gone."""
        return self._waiting.pop(job, None) is not None

    def on_led(self, now_ms: int) -> None:
        """A majority is heard, and knows this peer."""
        self._now_ms = now_ms
        if self._in_flight or not self._waiting or now_ms < self._not_before_ms:
            return
        for job in list(self._waiting)[:ROUND_MAX]:
            spec = self._in_flight[job] = self._waiting.pop(job)
            self._life.propose_for(SubmitJob(job, spec), now_ms, partial(self.on_outcome, job))

    def on_outcome(self, job: JobId, outcome: Outcome) -> None:
        spec = self._in_flight.pop(job)
        if isinstance(outcome, Rejected) and outcome.code == Unavailable.code:
            self._again[job] = spec
            self._not_before_ms = self._now_ms + AGAIN_MS
        else:
            told = SpoolOutcome(job, spec.name, _words(outcome))
            self.decided.append(SpoolDecided(told))
        if not self._in_flight:
            self._waiting = {**self._again, **self._waiting}
            self._again = {}
            self.on_led(self._now_ms)

    def take_decided(self) -> list[SpoolDecided]:
        decided, self.decided = self.decided, []
        return decided


def _words(outcome: Outcome) -> str:
    if isinstance(outcome, Rejected):
        return f"refused: {outcome.message}"
    assert isinstance(outcome, Submitted)
    return "known" if outcome.duplicate else "accepted"

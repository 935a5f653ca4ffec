"""A peer and the majority that it may lose: what it keeps on its own disk for that case, what it
goes on with, and what it says once it is back (E3 and E4 of the promises).

Invariants: what becomes of a result that was here when a majority is heard again, and of a task
that was, is told in a report; what a process before this one left is claimed by `PeerUp` or
dropped, and is begun again only while there is no majority to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from p2psched.core.cutoff import SETTLE_MS, CutOff
from p2psched.core.levels import CUT_OFF_LEVEL
from p2psched.core.life import Life
from p2psched.core.owned_book import OwnedBook
from p2psched.core.owner import Owner, OwnerEffect
from p2psched.core.separation_effects import (
    KeepResults,
    Recalled,
    Reported,
    SeparationEffect,
    SeparationEvent,
)
from p2psched.core.spooling import Spooling
from p2psched.core.state import LedgerState
from p2psched.core.verdicts import LINES_MAX, Verdicts, lines_of
from p2psched.model.commands import Grant
from p2psched.model.config import MAX_DISCONNECT_MS
from p2psched.model.ids import JobId
from p2psched.model.reconcile import OwnedPart, Recollection, Reconciliation, SpoolOutcome
from p2psched.model.reconciled import Reconciled
from p2psched.model.taskset import EMPTY, TaskSet

# Of one task, by one process, that its note doesn't know of yet. No two have one number.
ATTEMPTS_APART: Final = 100
# A process that starts looks for a majority so long before it goes on by itself: an election, or
# the start of all others, takes less.
RECALL_MS: Final = 6_000
RESTARTS_MAX: Final = 3  # without a majority; after more, most likely something here kills its peer
SPOOL_MS: Final = 5_000  # a report waits so long for what is in the spool

__all__ = ["MAX_DISCONNECT_MS", "Separation"]

Effects = list[OwnerEffect | SeparationEffect]


class Separation:
    """Of one process."""

    def __init__(self, owner: Owner, state: LedgerState, life: Life, max_ms: int) -> None:
        self._owner = owner
        self._state = state
        self._life = life
        self._cut = CutOff(owner, max_ms)
        self._book = OwnedBook(owner)
        self.spooling = Spooling(life)
        self._recalled: Recollection | None = None  # until a majority is heard
        self._cursor = 0
        self._went_on = False  # with what is recalled
        self._began_ms = 0
        self._since = life.info.incarnation  # the last one that heard a majority
        # Of the report that is open, if `owner.verdicts` is there.
        self._away_ms = 0
        self._restarts = 0
        self._spooled: list[SpoolOutcome] = []
        self._back_ms = 0  # when a majority was heard again
        self._decided_ms = 0  # when the newest word came
        self._awaited: dict[tuple[JobId, Grant], TaskSet] | None = None  # results, since it is back

    @property
    def is_cut(self) -> bool:
        return self._cut.is_cut

    @property
    def away_ms(self) -> int:
        """For how long no majority has been heard."""
        return self._cut.away_ms

    @property
    def restarts(self) -> int:
        """Without a majority, up to this process."""
        return self._life.info.incarnation - self._since if self.away_ms else 0

    @property
    def is_open(self) -> bool:
        """A report is still to come."""
        return self._owner.verdicts is not None

    def results(self) -> Iterable[tuple[JobId, Grant, TaskSet]]:
        """That the ledger has not judged."""
        return self._owner.outbox.parts()

    @property
    def is_calm(self) -> bool:
        """A majority is heard, and nothing is left of when it was not."""
        return self._recalled is None and not self.away_ms and not self.is_open and self.is_decided

    @property
    def is_decided(self) -> bool:
        """No result that was kept without a majority waits any more."""
        return self._owner.outbox.journal is None

    @property
    def overdue(self) -> tuple[JobId, ...]:
        """Jobs that were ended here because that takes too long."""
        return self._cut.overdue

    # --- events ---

    def on_begin(self, now_ms: int) -> int:
        """How far the process before this one was fed. Who has something to claim says that it is
        there once somebody hears it: it may have more to claim by then."""
        self._began_ms = now_ms
        if self._recalled is None:
            self._cut.on_begin(now_ms)
            self._life.begin(now_ms)
        return self._cursor

    def on_event(self, event: SeparationEvent) -> Effects:
        if not isinstance(event, Recalled):
            self.spooling.add(event.job, event.spec)
            return []
        effects: Effects = []
        found = event.recollection
        for job, spec in found.spool:
            self.spooling.add(job, spec)
        if found.has_work:
            self._recalled = found
            self._since, self._cursor = found.since, found.cursor
            self._cut.on_begin(event.now_ms, found.away_ms)
            for kept in found.results:
                effects += self._owner.recall_result(kept)
            if found.results:
                self._open()
        return effects

    def on_clock(self, now_ms: int, *, led: bool, up: bool) -> Effects:
        """`led`: a majority is heard; `up`: by all that is known here, it holds us to be up."""
        effects: Effects = []
        self._cut.on_clock(now_ms, led=led)
        if self._recalled is not None:
            self._on_recollection(self._recalled, now_ms, led=led)
        if self.is_cut:
            effects += self._on_cut(now_ms)
        elif led:
            self._on_led(now_ms, is_settled=up and self._life.is_settled)
            effects += self._close_if_decided(now_ms, is_settled=up and self._life.is_settled)
        if self._recalled is None or self._went_on:
            effects += self._note(now_ms)
        return effects

    def _note(self, now_ms: int) -> Sequence[SeparationEffect]:
        here = self._life.info.incarnation
        since = self._since if self.away_ms else here
        return self._book.look(now_ms, incarnation=here, since=since)

    def on_round(self, now_ms: int) -> Effects:
        journal, verdicts = self._owner.outbox.journal, self._owner.verdicts
        if not journal and verdicts is None and not self.spooling.decided:
            return []  # in nearly each turn
        effects: Effects = []
        if journal:
            effects.append(KeepResults(tuple(journal), anew=False))
            journal.clear()
        for decided in self.spooling.take_decided():
            if self._owner.verdicts is None:
                self._open()
            self._decided_ms = now_ms
            if len(self._spooled) < LINES_MAX:
                self._spooled.append(decided.outcome)
            effects.append(decided)
        verdicts = self._owner.verdicts
        if verdicts is not None and verdicts.is_news:
            verdicts.is_news, self._decided_ms = False, now_ms
        return effects

    # --- without a majority ---

    def _on_recollection(self, found: Recollection, now_ms: int, *, led: bool) -> None:
        if led:
            self._recalled = None
            self._life.begin(now_ms)
        elif self._may_go_on(now_ms):
            self._went_on = True
            for part in found.owned:
                done = [
                    kept.segment.tasks
                    for kept in found.results
                    if (kept.job, kept.grant) == (part.job, part.grant)
                ]
                left = part.tasks - TaskSet.union(done)
                spec = found.specs.get(part.job) if self._may_be_open(part.job) else None
                if left.ranges and spec is not None and not spec.start:
                    lives = self._life.info.incarnation - found.incarnation
                    attempt = part.attempt + ATTEMPTS_APART * lives
                    part = OwnedPart(part.job, part.grant, attempt, left)
                    self._owner.recall(part, spec)

    def _may_be_open(self, name: JobId) -> bool:
        """False if the ledger says that it has ended, as far as it is known here: what is noted of
        it is older."""
        job = self._state.jobs.get(name)
        return not job.ended if job is not None else name not in self._state.forgotten

    def _may_go_on(self, now_ms: int) -> bool:
        is_patient = now_ms - self._began_ms < RECALL_MS
        return not self._went_on and not is_patient and self.restarts <= RESTARTS_MAX

    def _on_cut(self, now_ms: int) -> Effects:
        told: Effects = []
        if self._awaited is not None and self._has_news:  # it was back, but not for long enough
            told += self._close(now_ms)
            self._owner.outbox.journal = None
        self._awaited = None
        if self._owner.verdicts is None:
            self._open()
        self._away_ms = max(self._away_ms, self.away_ms)
        self._restarts = max(self._restarts, self.restarts)
        effects: Effects = []
        if self._owner.outbox.journal is None:
            self._owner.outbox.journal = []
            effects.append(KeepResults(tuple(self._owner.outbox.results()), anew=True))
        return told + effects + self._cut.end_overdue()

    # --- back ---

    def _on_led(self, now_ms: int, *, is_settled: bool) -> None:
        if self._awaited is None:
            self._awaited, self._back_ms = self._results(), now_ms
        if is_settled:
            self._since = self._life.info.incarnation
            self._cut.on_settled(now_ms)
            self.spooling.on_led(now_ms)

    def _results(self) -> dict[tuple[JobId, Grant], TaskSet]:
        found: dict[tuple[JobId, Grant], TaskSet] = {}
        for job, grant, tasks in self._owner.outbox.parts():
            found[job, grant] = found.get((job, grant), EMPTY) | tasks
        return found

    def _open(self) -> None:
        self._owner.verdicts = Verdicts(self._state)
        self._away_ms, self._restarts = self.away_ms, self.restarts
        self._spooled, self._decided_ms = [], 0
        self._awaited = None

    def _close_if_decided(self, now_ms: int, *, is_settled: bool) -> Effects:
        verdicts, back_ms = self._owner.verdicts, self._cut.back_ms
        if verdicts is None or back_ms is None or not is_settled or now_ms - back_ms < SETTLE_MS:
            return []
        results = self._results()
        awaited = self._awaited or {}
        if any(results.get(key, EMPTY) & tasks for key, tasks in awaited.items()):
            return []
        if len(self.spooling) and now_ms - back_ms < SPOOL_MS:
            return []
        return self._close(now_ms)

    @property
    def _has_news(self) -> bool:
        verdicts = self._owner.verdicts
        return verdicts is not None and bool(any(verdicts.counts.values()) or self._spooled)

    def _close(self, now_ms: int) -> Effects:
        verdicts, back_ms = self._owner.verdicts, self._back_ms
        assert verdicts is not None, "a report is open"
        counts = verdicts.counts
        report = Reconciliation(
            away_ms=self._away_ms,
            decided_ms=max(0, self._decided_ms - back_ms),
            restarts=self._restarts,
            committed=lines_of(verdicts.committed),
            discarded=lines_of(verdicts.discarded),
            ended=lines_of(verdicts.ended),
            overdue=lines_of(verdicts.overdue),
            spooled=tuple(self._spooled),
            left_off=verdicts.left_off,
            tasks_committed=counts["committed"],
            tasks_discarded=counts["discarded"],
            tasks_ended=counts["ended"],
            told_ms=now_ms - back_ms,
        )
        self._owner.verdicts = self._owner.outbox.journal = None
        if not report.is_empty and self._state.level >= CUT_OFF_LEVEL:
            self._tell(report, now_ms)
        return [Reported(report)]

    def _tell(self, report: Reconciliation, now_ms: int) -> None:
        """For everybody."""
        told = Reconciled(
            *(self._life.info.peer, report.away_ms),
            committed=report.tasks_committed,
            discarded=report.tasks_discarded,
            ended=report.tasks_ended,
            spooled=len(report.spooled),
        )
        self._life.propose(told, now_ms)

"""The referee of peers that are cut off: E3 and E4.

It keeps its own clock for how long each peer heard no majority, over its processes, and its own
list of what the peer owes an answer for: every result that it wrote to its disk meanwhile, and
every job in its spool. A report is compared with what the ledger said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from p2psched.model.commands import (
    Command,
    Event,
    Granted,
    JobForgotten,
    Recorded,
    Retried,
    Revoked,
    SubmitJob,
)
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId, PeerId
from p2psched.model.reconcile import Judged, KeptResult, Reconciliation
from p2psched.testing.promises import demand

LATE_US: Final = 1_500_000  # for a look at the clock, a turn, and a clock that isn't quite right
NEW_US: Final = 200_000  # a grant may come on the last word of a majority
MARK: Final = "spool "  # begins the submitter of each job that is spooled

Key = tuple[JobId, int, int]  # job, task, grant


class CutOffReferee:
    def __init__(self) -> None:
        self._heard_us: dict[PeerId, int] = {}
        self._away_us: dict[PeerId, int] = {}  # at its last look at the time
        self._granted_us: dict[int, int] = {}
        self._now_us = 0
        self._owed: dict[PeerId, set[Key]] = {}
        self._counted: set[Key] = set()  # ends of attempts that the ledger took
        self._revoked: set[Key] = set()
        self._forgotten: set[JobId] = set()
        self._spooled: dict[str, tuple[PeerId, JobId]] = {}  # by submitter
        self._order: dict[PeerId, list[JobId]] = {}  # in the spool, and not committed
        self._submitted: dict[str, JobId] = {}
        self.max_us = 0
        self.told = 0  # tasks in reports

    # --- how long ---

    def on_clock(self, peer: PeerId, now_us: int, *, led: bool) -> None:
        """A look of its process at the time, or a word of a majority between two of them."""
        self._now_us = now_us
        if led or peer not in self._heard_us:
            self._heard_us[peer] = now_us
        self._away_us[peer] = now_us - self._heard_us[peer]

    def on_started(self, peer: PeerId, batch: Batch, index: int) -> None:
        if self._granted_us.get(batch.grant, 0) + NEW_US >= self._heard_us.get(peer, 0):
            return  # it has heard one since, or it would not know of the grant
        limit_ms = batch.spec.max_disconnect_ms
        limit_us = self.max_us if limit_ms is None else limit_ms * 1000
        demand(
            self._away_us.get(peer, 0) <= max(limit_us, 2_000_000) + LATE_US,
            "E3",
            f"peer {peer} starts {batch.job}/{index} after {self._away_us.get(peer, 0)} µs without "
            "a majority",
        )

    # --- results ---

    def on_event(self, event: Event) -> None:
        """The first peer says it."""
        if isinstance(event, Granted):
            self._granted_us[event.grant] = self._now_us
        if isinstance(event, JobForgotten):
            self._forgotten.add(event.job)
        if isinstance(event, Revoked):
            self._revoked.update((event.job, index, event.grant) for index in event.tasks)
        if not isinstance(event, Recorded | Retried):
            return
        keys = {(event.job, index, event.grant) for index in event.segment.tasks}
        self._counted.update(keys - self._revoked)  # else it is the ledger's or a person's own word

    def on_kept(self, peer: PeerId, results: Iterable[KeptResult]) -> None:
        owed = self._owed.setdefault(peer, set())
        for kept in results:
            owed.update((kept.job, index, kept.grant) for index in kept.segment.tasks)

    def on_reported(self, peer: PeerId, report: Reconciliation, held: set[Key]) -> None:
        """`held`: results that it has still, for they came later."""
        committed, discarded = _keys(report.committed), _keys(report.discarded)
        ended = _keys(report.ended)
        wrong = committed - self._counted
        demand(not wrong, "E4", f"peer {peer} says that {list(wrong)[:3]} count, and they don't")
        superseded = [line for line in report.discarded if line.current]
        # A process before this one may have brought results of what was begun again: of a job that
        # is forgotten nobody can say any more that they counted.
        superseded += [line for line in report.ended if line.job not in self._forgotten]
        wrong = _keys(superseded) & self._counted
        demand(not wrong, "E4", f"peer {peer} says that {list(wrong)[:3]} don't count, and they do")
        twice = committed & discarded | committed & ended
        demand(not twice, "E4", f"peer {peer} tells two fates of {list(twice)[:3]}")
        owed = self._owed.pop(peer, set())
        silent = owed - committed - discarded - ended - held
        demand(
            not silent or report.left_off > 0,
            "E4",
            f"peer {peer} says nothing of {list(silent)[:3]}, which it had",
        )
        self.told += len(committed | discarded | ended)

    def on_lost(self, peer: PeerId) -> None:
        """Its disk is gone, and the spool with it."""
        self._owed.pop(peer, None)
        for job in self._order.pop(peer, []):
            self._spooled = {s: (p, j) for s, (p, j) in self._spooled.items() if j != job}

    # --- the spool ---

    def on_spooled(self, peer: PeerId, command: SubmitJob) -> None:
        self._spooled[command.spec.submitter] = (peer, command.job)
        self._order.setdefault(peer, []).append(command.job)

    def on_committed(self, command: Command) -> None:
        """It is in the ledger, for the first time or again."""
        if not isinstance(command, SubmitJob) or not command.spec.submitter.startswith(MARK):
            return
        submitter = command.spec.submitter
        first = self._submitted.setdefault(submitter, command.job)
        demand(first == command.job, "E4", f"what was spooled once is jobs {first}, {command.job}")
        peer, job = self._spooled.get(submitter, ("", JobId("")))
        demand(not peer or job == command.job, "E4", f"job {job} was spooled, not {command.job}")
        waiting = self._order.get(PeerId(peer), [])
        if job in waiting:
            demand(waiting[0] == job, "E4", f"job {job} passes {waiting[0]} in the spool of {peer}")
            waiting.remove(job)

    def check_end(self) -> None:
        for peer, owed in self._owed.items():
            demand(not owed, "E4", f"peer {peer} never says what became of {list(owed)[:3]}")
        for peer, jobs in self._order.items():
            demand(not jobs, "E4", f"{len(jobs)} jobs are left in the spool of {peer}")


def _keys(lines: Iterable[Judged]) -> set[Key]:
    return {(line.job, index, line.grant) for line in lines for index in line.tasks}

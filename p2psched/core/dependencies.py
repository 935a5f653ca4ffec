"""The part of the fold that is about jobs that come after others (ADR 0072).

Such a job is there, and runs nothing: it counts which of those before it have not ended
(`Job.awaits`). Where one of them ends, in whatever command, that is noted (`Lineage.part`), and
settled at the end of that same command. So whoever has applied the end has applied what follows
from it, and no entry is between them.

A job that was aborted has ended, and those behind it follow in the same command, one after another:
as many as wait at most, and that is bounded (`AWAITING_JOBS_MAX`).

Invariant: a job that awaits another is among the children of that one, which has not ended.
"""

from __future__ import annotations

from typing import Final

from p2psched.core import retrying
from p2psched.core.jobs import Job
from p2psched.core.lineage import Lineage
from p2psched.core.state import LedgerState
from p2psched.model.after import AfterView, Ancestor, JobAborted, JobReleased, ParentView
from p2psched.model.commands import Rejected
from p2psched.model.ids import JobId, short
from p2psched.model.job import Cause, JobSpec, JobState

_SUCCEEDED: Final = JobState.SUCCEEDED  # as `machine._OK`
AWAITING_JOBS_MAX: Final = 10_000  # that wait for others: one command may release or abort them all

_NO_PARENTS: Final = AfterView()


def refusal(s: LedgerState, spec: JobSpec) -> Rejected | None:
    """Why a job that comes after these can't be accepted."""
    after = spec.after
    if after is None:
        return None
    for parent in after.parents:
        if parent in s.jobs:
            continue
        if parent not in s.forgotten:
            return Rejected(
                "not-found", f"no job {parent} to come after: `p2psched jobs` lists them"
            )
        if not after.goes_on:
            return Rejected(
                "not-found",
                f"job {parent} was forgotten, and with it whether it succeeded: leave it out of "
                "what this one comes after, or go on whatever became of it",
            )
    if len(s.lineage.awaiting) >= AWAITING_JOBS_MAX:
        return Rejected(
            "unavailable",
            f"{AWAITING_JOBS_MAX:,} jobs wait for others already: submit it again once some of "
            "them run, or make one job of several",
        )
    return None


def attach(s: LedgerState, job: Job) -> None:
    """It is accepted, and waits for those before it that have not ended. One that was forgotten has
    (see `refusal`)."""
    for parent in _known_parents(s, job):
        if not parent.ended:
            job.awaits[parent.id] = None
    s.lineage.attach(job)


def abort_at_once(s: LedgerState, job: Job) -> None:
    """If one of those before it has ended, and did not succeed."""
    after = job.spec.after
    if after is not None and not after.goes_on:
        parents = _known_parents(s, job)
        bad = next((one for one in parents if one.ended and one.state is not _SUCCEEDED), None)
        if bad is not None:
            _abort(s, job, bad)


def _known_parents(s: LedgerState, job: Job) -> list[Job]:
    after = job.spec.after
    names = after.parents if after is not None else ()
    return [s.jobs.peek(name) for name in names if name in s.jobs]


def settle(s: LedgerState) -> None:
    """At the end of a command that ended jobs which others come after."""
    for name in s.lineage.parted:  # which grows meanwhile, by those that are aborted
        parent = s.jobs.peek(name)
        for child in s.lineage.children.pop(name, ()):
            job = s.jobs[child]
            del job.awaits[name]
            assert job.spec.after is not None
            if parent.state is not _SUCCEEDED and not job.spec.after.goes_on:
                _abort(s, job, parent)
            elif not job.awaits:
                _release(s, job, name)
    s.lineage.parted.clear()


def _release(s: LedgerState, job: Job, by: JobId) -> None:
    del s.lineage.awaiting[job.id]
    s.events.append(JobReleased(job.id, by))
    retrying.begin(s, job)  # its limits of time count from here
    s.note_unplaced(job)


def _abort(s: LedgerState, job: Job, by: Job) -> None:
    job.aborted_by = by.aborted_by or Ancestor(by.id, by.spec.name, by.state.value)
    s.events.append(JobAborted(job.id, by.id, job.aborted_by))
    s.halt(job, JobState.ABORTED, Cause.CANCELLED)


def story(s: LedgerState, job: Job) -> str:
    """For people: what it waits for."""
    first = s.jobs.peek(next(iter(job.awaits)))
    name = f" ({first.spec.name})" if first.spec.name else ""
    state = "waits for others itself" if first.awaits else "is running"
    more = f", and for {len(job.awaits) - 1} more" if len(job.awaits) > 1 else ""
    return f"waits for job {short(first.id)}{name}, which {state}{more}"


def view(s: LedgerState, job: Job, *, whole: bool) -> AfterView:
    after = job.spec.after
    if after is None:
        return _NO_PARENTS
    first = next(iter(job.awaits), None)
    return AfterView(
        parents=tuple(_parent(s, name) for name in after.parents) if whole else (),
        open=len(job.awaits),
        first=_parent(s, first) if first is not None else None,
        goes_on=after.goes_on,
        ancestor=job.aborted_by,
    )


def _parent(s: LedgerState, name: JobId) -> ParentView:
    if name not in s.jobs:
        return ParentView(name)
    job = s.jobs.peek(name)
    return ParentView(name, job.spec.name, "waiting" if job.awaits else job.state.value)


def rebuild(s: LedgerState) -> None:
    """What follows from the rest."""
    s.lineage = Lineage(s.jobs[name] for name in s.running)

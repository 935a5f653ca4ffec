"""The part of the fold that keeps tasks from starting twice (ADR 0059).

A task of a job with `Start.ONCE` starts after its owner's `Started` is committed. If that owner is
lost then, the task is unknown: under no grant, not waiting and not ended. Its owner's word still
counts, under the same grant, until a person has decided; nothing else moves it. Of one with
`Start.EXCLUSIVE` nobody decides, but time: see `exclusive`.

`Job.unknown` holds what each grant had; `HeldGrant.started` what its owner may have begun of it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core import exclusive, keeping
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState
from p2psched.model import chunks, items
from p2psched.model.commands import (
    Acknowledged,
    Complete,
    Outcome,
    Placed,
    Rejected,
    Revoked,
)
from p2psched.model.job import Cause, Segment
from p2psched.model.once import (
    Decide,
    Decided,
    Doubted,
    Gone,
    Once,
    Start,
    Started,
    Unsure,
    Verdict,
)
from p2psched.model.taskset import EMPTY, TaskSet

ONCE: Final = Start.ONCE  # as `machine._OK`
DISOWN_LEVEL: Final = 6  # an older version gives it back to its owner


def decide(s: LedgerState, command: Once) -> Outcome:
    job = s.jobs.get(command.job)
    if job is None:
        return keeping.unknown(s, command.job)
    match command.step:
        case Started():
            return _started(s, job, command.step)
        case Unsure():
            return _unsure(s, job, command.step)
        case Decide():
            return _decide(s, job, command.step)
        case Gone():
            return _gone(s, job, command.step)


def _started(s: LedgerState, job: Job, step: Started) -> Outcome:
    """Safe to repeat: who has started them already does not do it again."""
    held = job.grants.get(step.grant)
    is_mine = held is not None and (held.peer, held.incarnation) == (step.peer, step.incarnation)
    if held is None or not is_mine or not s.is_live(step.peer, step.incarnation):
        return Placed(step.grant, EMPTY)
    tasks = held.tasks & step.tasks
    if tasks.ranges:
        held.started = held.started | tasks
        exclusive.lease(s, job, held)
    return Placed(step.grant, tasks)


def _unsure(s: LedgerState, job: Job, step: Unsure) -> Outcome:
    held = job.grants.get(step.grant)
    if held is not None:
        doubt(s, job, held, step.tasks)
    record = job.unknown.get(step.grant)
    if record is not None and _keeps_in_mind(s, job):
        record.started = record.started - step.tasks
    return Acknowledged()


def _gone(s: LedgerState, job: Job, step: Gone) -> Outcome:
    """Of exclusive tasks. It costs them none of their attempts."""
    if job.spec.start is not Start.EXCLUSIVE:
        return _unsure(s, job, Unsure(step.grant, step.tasks))
    held, record = job.grants.get(step.grant), job.unknown.get(step.grant)
    tasks = EMPTY
    if held is not None:
        tasks = held.tasks & held.started & step.tasks
        s.release(job, held, tasks)
    if record is not None:
        unknown = record.tasks & step.tasks
        tasks = tasks | unknown
        _forget(job, record, unknown)
    owner = held or record
    if owner is not None and tasks.ranges:
        s.events.append(Revoked(job.id, step.grant, owner.peer, tasks, Cause.PEER_LOST))
        job.losses = job.losses.plus(tasks)
        job.attempts_lost += len(tasks)
        job.waiting = job.waiting | tasks
        s.note_unplaced(job)
    return Acknowledged()


def _keeps_in_mind(s: LedgerState, job: Job) -> bool:
    """What an owner has said that it knows no more, no word that it said before, and that comes
    later, gives back to it: it would start again. `started` of what is unknown are the others."""
    return job.spec.start is Start.EXCLUSIVE or s.level >= DISOWN_LEVEL


def doubt(
    s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool = False
) -> TaskSet:
    """The owner of `tasks` is lost. Those that it may have begun are unknown from now on; the
    others are returned. `died`: as far as anybody knows, its process has."""
    doubted = tasks & held.started & held.tasks
    if doubted.ranges:
        known = job.unknown.get(held.grant)
        before = known.tasks if known is not None else EMPTY
        record = job.unknown[held.grant] = msgspec.structs.replace(held, tasks=before | doubted)
        if _keeps_in_mind(s, job):
            record.started = doubted if known is None else known.started | doubted
        if known is not None:
            record.died, record.alone = known.died, known.alone
        if died and job.spec.start is Start.EXCLUSIVE and s.level >= exclusive.AFRESH_LEVEL:
            exclusive.note_death(s, job, record, doubted)
        s.release(job, held, doubted)
        s.events.append(Doubted(job.id, held.grant, held.peer, doubted))
        exclusive.note(s, job)
    return tasks - doubted


def readmit(s: LedgerState, job: Job, grant: int, tasks: TaskSet) -> None:
    """The owner says something of these: what of them is unknown is its own again."""
    record = job.unknown.get(grant)
    if record is None or record.peer not in s.peers:
        return
    back = record.tasks & tasks
    if _keeps_in_mind(s, job):
        back = back & record.started
    if not back.ranges:
        return
    held = job.grants.get(grant)
    if held is None:
        none = {"tasks": EMPTY, "died": EMPTY, "alone": EMPTY}
        held = job.grants[grant] = msgspec.structs.replace(record, **none)
    held.tasks = held.tasks | back
    held.until_ms = max(held.until_ms, record.until_ms)
    held.started = held.started | back
    s.load(job, held, len(back))
    _forget(job, record, back)


def readmit_brought(s: LedgerState, job: Job, command: Complete) -> None:
    """A lost owner brings results after all."""
    if job.unknown:
        brought = TaskSet.union([segment.tasks for segment in command.segments])
        readmit(s, job, command.grant, brought)


def _forget(job: Job, record: HeldGrant, tasks: TaskSet) -> None:
    record.tasks = record.tasks - tasks
    record.died, record.alone = record.died - tasks, record.alone - tasks
    if not record.tasks.ranges:
        del job.unknown[record.grant]


def _decide(s: LedgerState, job: Job, step: Decide) -> Outcome:
    fault = fault_of(job, step)
    if fault:
        return Rejected("refused", fault)
    s.events.append(Decided(job.id, step.tasks, step.verdict, step.by, step.reason))
    for record in list(job.unknown.values()):
        tasks = record.tasks & step.tasks
        if not tasks.ranges:
            continue
        _forget(job, record, tasks)
        s.events.append(Revoked(job.id, record.grant, record.peer, tasks, Cause.PEER_LOST))
        if step.verdict is Verdict.RUN_AGAIN:
            job.losses = job.losses.plus(tasks)
            job.attempts_lost += len(tasks)
            job.waiting = job.waiting | tasks
        else:
            _end(s, job, record, tasks, step)
    s.note_unplaced(job)
    s.end_if_done(job)
    return Acknowledged()


def _end(s: LedgerState, job: Job, record: HeldGrant, tasks: TaskSet, step: Decide) -> None:
    if step.verdict is Verdict.SUCCEEDED:
        cause = Cause.OK
        job.succeeded = job.succeeded | tasks
        given = dict(zip(step.tasks, chunks.unpack(step.data), strict=True))
        said = [given[index] for index in tasks]
    else:
        cause = Cause.PEER_LOST
        job.failed = job.failed | tasks
        message = f"{step.by or 'somebody'} said that it failed: {step.reason}"
        said = [items.pack({"type": "PeerLost", "message": message})] * len(tasks)
    at = 0
    for start, stop in tasks.ranges:
        packed = chunks.pack(said[at : at + stop - start])
        s.record(job, record, Segment(start, stop, cause, packed))
        at += stop - start


def fault_of(job: Job, step: Decide) -> str:
    """Why nobody may decide so; empty if it is well."""
    if job.spec.start is Start.EXCLUSIVE:
        return f"tasks of job {job.id} are exclusive: time decides, so there is nothing to resolve"
    open_tasks = job.doubtful
    settled = step.tasks - open_tasks
    if job.ended or not step.tasks.ranges or settled.ranges:
        which = f"task {settled.first} of job {job.id} is" if settled.ranges else "these are"
        left = f"unknown are {open_tasks}" if open_tasks.ranges else "none of the job is unknown"
        return f"{which} not unknown, so there is nothing to decide; {left}"
    if step.verdict is Verdict.SUCCEEDED:
        try:
            count = chunks.check(step.data)
        except ValueError as exc:
            return f"the results are damaged: {exc}"
        if count != len(step.tasks):
            return f"{len(step.tasks)} tasks need a result each, and {count} came"
    return ""


def doubt_all(job: Job) -> None:
    """The ledger goes on from a copy: what was granted there may have begun since."""
    for held in job.grants.values() if job.spec.start else ():
        # What is exclusive waits, for the time of a lease: see `exclusive.hold_all`.
        held.started = held.tasks if job.spec.start is ONCE else EMPTY

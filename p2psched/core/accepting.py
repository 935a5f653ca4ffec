"""The part of the fold that accepts jobs."""

from __future__ import annotations

from p2psched.core import backing, dependencies, exclusive, fitting, holding, levels, retrying
from p2psched.core.jobs import Job
from p2psched.core.state import LedgerState
from p2psched.model.commands import JobAdded, Outcome, Rejected, SubmitJob, Submitted
from p2psched.model.job_head import digest_of


def submit(s: LedgerState, command: SubmitJob) -> Outcome:
    known = s.jobs.get(command.job)
    if known is not None:
        if known.spec.digest != digest_of(command.spec):
            return Rejected("usage", f"job id {command.job} is taken by another job")
        return Submitted(command.job, duplicate=True)
    if command.job in s.forgotten:
        return Submitted(command.job, duplicate=True)
    job = Job.of(command.job, command.spec, index=s.command_index, wall_ms=s.wall_ms)
    head = job.spec
    is_choosy = head.needs is not None or head.policy
    has_rules = bool(head.retry or head.times or head.checkpoint or command.spec.pace)
    has_rules = has_rules or bool(head.start or head.backing or head.precedence or head.after)
    if is_choosy or has_rules or head.hold is not None:
        refusal = _refusal(s, command, job)
        if refusal is not None:
            return refusal
        if head.after is not None:
            dependencies.attach(s, job)
        retrying.begin(s, job)
        backing.note_running(s, job)
    s.jobs[job.id] = job
    s.running[job.id] = None
    if is_choosy:
        fitting.note_running(s, job)
    s.note_unplaced(job)
    s.note_sent(job)
    s.events.append(JobAdded(job.id, command.spec))
    exclusive.hold_new(s, job)
    if head.after is not None:
        dependencies.abort_at_once(s, job)
    return Submitted(job.id, duplicate=False)


def _refusal(s: LedgerState, command: SubmitJob, job: Job) -> Rejected | None:
    refusal = levels.refusal(s, command) or holding.refusal(s, job)
    refusal = refusal or dependencies.refusal(s, command.spec)
    if refusal is None and job.spec.needs is not None:
        refusal = fitting.refusal(s, command.spec)
    return refusal

"""The part of the fold that is about keeping: forget, pin, run again, and who holds large results.

A forgotten job leaves its id behind. A large result that nobody holds any more is lost, which is
said and never hidden; running its task again makes another one.
"""

from __future__ import annotations

from p2psched.core import backing, exclusive, fitting, retrying
from p2psched.core.jobs import Job
from p2psched.core.state import LedgerState
from p2psched.model.after import ended_word
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Forget,
    Held,
    JobForgotten,
    JobReopened,
    Outcome,
    Pin,
    Rejected,
    ResultsLost,
    Retry,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState, argument_size
from p2psched.model.job_head import digest_of
from p2psched.model.taskset import TaskSet


def decide(s: LedgerState, command: Cancel | Forget | Pin | Retry | Held) -> Outcome:
    match command:
        case Cancel():
            return cancel(s, command)
        case Forget():
            return forget(s, command)
        case Pin():
            return pin(s, command)
        case Retry():
            return retry(s, command)
        case Held():
            return held(s, command)


def cancel(s: LedgerState, command: Cancel) -> Outcome:
    job = s.jobs.get(command.job)
    if job is None:
        return unknown(s, command.job)
    if not job.ended:
        s.halt(job, JobState.CANCELLED, Cause.CANCELLED)
    return Acknowledged()


def forget(s: LedgerState, command: Forget) -> Outcome:
    job = s.jobs.get(command.job)
    if job is None:
        return unknown(s, command.job, Acknowledged())
    if not job.ended:
        return Rejected("refused", f"job {job.id} still runs: cancel it first")
    if command.ended_ms is not None and (job.pinned or job.ended_ms != command.ended_ms):
        return Rejected("refused", f"job {job.id} was pinned or run again meanwhile")
    if command.due_ms is not None and s.stamp_ms < command.due_ms:
        return Rejected("refused", f"job {job.id} is kept until {command.due_ms}")
    del s.jobs[job.id]
    indexes: tuple[dict[JobId, None], ...] = (s.ended, s.whole, s.with_blobs)
    for index in indexes:
        index.pop(job.id, None)
    s.drop_sent(job)
    s.result_bytes -= job.result_bytes
    s.forgotten.add(job.id, s.stamp_ms)
    refs = (*job.spec.blobs, *(blob.ref for blob in job.blobs.values()))
    s.events.append(JobForgotten(job.id, tuple(dict.fromkeys(refs))))
    return Acknowledged()


def pin(s: LedgerState, command: Pin) -> Outcome:
    job = s.jobs.get(command.job)
    if job is None:
        return unknown(s, command.job)
    job.pinned = command.pinned
    return Acknowledged()


def retry(s: LedgerState, command: Retry) -> Outcome:
    job = s.jobs.get(command.job)
    if job is None:
        return unknown(s, command.job)
    if job.spec.digest != digest_of(command.spec):
        return Rejected("usage", f"job {job.id} was submitted with another spec")
    if job.state is JobState.CANCELLED:
        return Rejected("refused", f"job {job.id} was cancelled, which is final: submit it again")
    if job.aborted_by is not None:
        why = f"job {job.aborted_by.job} {ended_word(job.aborted_by.state)}"
        return Rejected("refused", f"job {job.id} was aborted, because {why}: submit it again")
    tasks = job.failed | job.lost | unreachable(s, job)
    if job.stopped:  # what was given up then
        tasks = tasks | job.cancelled
    if command.tasks:
        tasks = tasks & command.tasks
    if tasks:
        _reopen(s, job, command, tasks)
    return Acknowledged()


def _reopen(s: LedgerState, job: Job, command: Retry, tasks: TaskSet) -> None:
    job.failed = job.failed - tasks
    given_up = job.cancelled & tasks
    job.cancelled = job.cancelled - tasks
    job.succeeded = job.succeeded - tasks
    job.lost = job.lost - tasks
    job.failures = job.failures.without(tasks)  # they get all their retries again
    job.spaceless = job.spaceless.without(tasks)
    job.forget_deaths(tasks)
    retrying.reopen(s, job, tasks)
    backing.reopen(job, tasks)
    job.waiting = job.waiting | tasks
    for key in [key for key in job.blobs if key[0] in tasks]:
        drop_blob(s, job, job.blobs.pop(key))
    if job.ended:
        job.state = JobState.RUNNING
        job.ended_wall_ms = None
        job.full = command.spec
        s.running_bytes += argument_size(command.spec.work)
        s.running[job.id] = None
        fitting.note_running(s, job)
        backing.note_running(s, job)
        del s.ended[job.id]
        s.whole.pop(job.id, None)
    exclusive.hold_again(s, job, tasks, given_up)
    s.note_unplaced(job)
    s.events.append(JobReopened(job.id, tasks, job.segments))


def held(s: LedgerState, command: Held) -> Outcome:
    job = s.jobs.get(command.job)
    if job is None:
        return unknown(s, command.job, Acknowledged())
    touched: list[int] = []
    for index, name, digest in command.blobs:
        blob = job.blobs.get((index, name))
        if blob is None or blob.ref.digest != digest:
            continue
        holders = set(blob.holders) - {command.peer}
        if command.held:
            holders.add(command.peer)
        job.blobs[index, name] = _with_holders(blob, tuple(sorted(holders)))
        touched.append(index)
    _note_lost(s, job, TaskSet.from_indices(touched))
    return Acknowledged()


def _note_lost(s: LedgerState, job: Job, touched: TaskSet) -> None:
    """Holders of these tasks' results have changed. Cost O(large results of the job)."""
    if not touched:
        return
    incomplete = TaskSet.from_indices(
        index for (index, _), blob in job.blobs.items() if not blob.holders
    )
    gone = (touched & incomplete) - job.lost
    job.lost = (job.lost - (touched - incomplete)) | gone
    if gone:
        s.events.append(ResultsLost(job.id, gone))


def add_blobs(s: LedgerState, job: Job, blobs: tuple[ResultBlob, ...]) -> None:
    """Large results of tasks that have just succeeded."""
    if not blobs:
        return
    s.with_blobs[job.id] = None
    for blob in blobs:
        twice = job.blobs.get((blob.index, blob.name))  # named twice by its owner: the last counts
        if twice is not None:
            drop_blob(s, job, twice)
        job.blobs[blob.index, blob.name] = blob
        job.result_bytes += blob.ref.size
        s.result_bytes += blob.ref.size
    gone = TaskSet.from_indices(blob.index for blob in blobs if not blob.holders)
    if gone:  # its owner could not say who has it
        job.lost = job.lost | gone
        s.events.append(ResultsLost(job.id, gone))


def drop_blob(s: LedgerState, job: Job, blob: ResultBlob) -> None:
    job.result_bytes -= blob.ref.size
    s.result_bytes -= blob.ref.size


def unreachable(s: LedgerState, job: Job) -> TaskSet:
    """Tasks with a large result whose holders are all down: it comes back with one of them."""
    return TaskSet.from_indices(
        blob.index
        for blob in job.blobs.values()
        if blob.holders and not any(s.is_up(peer) for peer in blob.holders)
    )


def live_holders(s: LedgerState, blob: ResultBlob) -> tuple[PeerId, ...]:
    return tuple(peer for peer in blob.holders if s.is_up(peer))


def _with_holders(blob: ResultBlob, holders: tuple[PeerId, ...]) -> ResultBlob:
    return ResultBlob(blob.index, blob.name, blob.ref, holders)


def unknown(s: LedgerState, job: JobId, if_forgotten: Outcome | None = None) -> Outcome:
    """The outcome of a command on a job that is not there."""
    if job in s.forgotten:
        return if_forgotten or Rejected("not-found", f"job {job} was forgotten")
    return Rejected("not-found", f"no job {job}")

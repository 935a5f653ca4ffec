"""The part of the fold that says what follows a bad end: another attempt, when and where; an alert;
the end of the job. And what follows when a job's own time is over.

A job's rules are by cause (`RetryRule`), each with its own count; what has no rule is counted
together, as `JobSpec.retries` say. Tasks that wait for a later attempt wait with all others, and
are in `Job.delayed` besides: nothing places them until an `Elapsed` has taken them out.

Delays are drawn, and the same on all peers: from job, block of tasks, cause and count. A job has at
most `JITTERS_MAX` blocks, and moments are rounded down to a thousandth of what they are drawn from:
so a million tasks that fail at once are a few thousand sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from p2psched.core import exclusive, poison
from p2psched.core.counter import NOTHING
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState
from p2psched.model import chunks, items
from p2psched.model.commands import Acknowledged, Retried, Revoked
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.pace_commands import Warn
from p2psched.model.retry import LAPSES_MAX, Delay, RetryRule, Severity
from p2psched.model.retry_events import Alerted, Delayed
from p2psched.model.taskset import EMPTY, TaskSet

JITTERS_MAX: Final = 4_096  # blocks of one job, each with delays of its own
STEPS: Final = 1_000  # moments that a drawn delay may end at
SINK_STEPS_MAX: Final = 3  # that a task is demoted: from there on it keeps its place
SLOW_CAUSES: Final = (Cause.TIMEOUT, Cause.STALLED)
SLOW_PEERS: Final = 2  # where a task met its limit before it counts as too slow everywhere


# --- ends of attempts -----------------------------------------------------------------------------


def on_end(
    s: LedgerState, job: Job, held: HeldGrant, segment: Segment, rule: RetryRule
) -> tuple[TaskSet, list[Segment]]:
    """Attempts have ended by a cause with a rule; their tasks are nobody's. What of them was the
    last attempt of its task, and as which segments that is recorded."""
    tasks, cause = segment.tasks, segment.cause
    before = job.ends.get(cause, NOTHING)
    final = tasks if not rule.most else tasks & before.at_least(rule.most)
    if rule.severity is Severity.FATAL:
        final = tasks
        job.stopped = job.stopped or f"a task ended by {cause.value}, which is fatal for this job"
    again = tasks - final
    if again.ranges:
        for part in segment.parts(again):
            s.events.append(Retried(job.id, held.grant, held.peer, part))
        if cause is Cause.LEASE_LOST:
            job.attempts_lost += len(again)
        else:
            job.attempts_failed += len(again)
        job.waiting = job.waiting | again
        if rule.demote:
            _sink(s, job, again)
        _delay(s, job, before.split(again), rule)
    if rule.elsewhere:
        job.avoids[held.peer] = job.avoids.get(held.peer, EMPTY) | tasks
    job.ends[cause] = before.plus(again)
    alarming = final if rule.severity >= Severity.ERROR else tasks
    if rule.severity is not Severity.INFO and alarming.ranges:
        _alert(s, job, held, alarming, rule)
    parts = segment.parts(final)
    if cause in SLOW_CAUSES and rule.elsewhere:
        parts = [told for part in parts for told in _slow(s, job, part)]
    return final, parts


def _sink(s: LedgerState, job: Job, tasks: TaskSet) -> None:
    """One step each: behind all that was submitted until now. Who is at the last step keeps the
    place that its job got there first, so that it is placed some day."""
    job.demoted = job.demoted | tasks
    sinking = tasks - job.sunk.at_least(SINK_STEPS_MAX)
    for before, _ in job.sunk.split(sinking):
        step = before + 1
        at_floor = step == SINK_STEPS_MAX and step in job.sunk_at
        job.sunk_at[step] = job.sunk_at[step] if at_floor else s.command_index
    job.sunk = job.sunk.plus(sinking)


def _alert(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, rule: RetryRule) -> None:
    if rule.cause not in job.alerted:
        job.alerted[rule.cause] = None
        severity = rule.severity.name.lower()
        s.events.append(Alerted(job.id, held.peer, tasks, rule.cause, severity))


def warn(s: LedgerState, command: Warn) -> Acknowledged:
    """A task is too slow or silent, as its owner sees it; told once for each job."""
    job, task = s.jobs.get(command.job), TaskSet.of(command.index, command.index + 1)
    held = job.grants.get(command.grant) if job is not None else None
    if job is not None and held is not None and held.tasks & task and not job.warned:
        job.warned = True
        s.events.append(Alerted(job.id, held.peer, task, Cause.STALLED, "warn", command.why))
    return Acknowledged()


def _slow(s: LedgerState, job: Job, segment: Segment) -> list[Segment]:
    """These have met their limit for the last time, or stalled. Who has on several peers is told
    that it was not the peer."""
    groups = [(0, segment.tasks)]
    for tasks in job.avoids.values():
        groups = [
            (met + is_in, part)
            for met, group in groups
            for is_in, part in ((1, group & tasks), (0, group - tasks))
            if part.ranges
        ]
    told = [
        part if met < SLOW_PEERS else _with_story(s, job, part)
        for met, group in groups
        for part in segment.parts(group)
    ]
    return sorted(told, key=lambda part: part.start)


def _with_story(s: LedgerState, job: Job, segment: Segment) -> Segment:
    first = segment.start
    names = [s.name_of(peer) for peer, tasks in job.avoids.items() if first in tasks]
    met = "it met its limit" if segment.cause is Cause.TIMEOUT else "it stalled"
    story = f"too slow everywhere: {met} on {', '.join(names)}"
    try:
        packed = [_retold(item, story) for item in chunks.unpack(segment.data)]
    except ValueError:  # no item of ours
        return segment
    return Segment(first, segment.stop, segment.cause, chunks.pack(packed), segment.busy_us)


def _retold(item: bytes, story: str) -> bytes:
    header, value, stdout, stderr = items.unpack(item)
    said = str(header.get("message", ""))
    header["message"] = f"{story} ({said})" if said else story
    return items.pack(header, value, stdout, stderr)


# --- delays ---------------------------------------------------------------------------------------


def _delay(s: LedgerState, job: Job, parts: Iterable[tuple[int, TaskSet]], rule: RetryRule) -> None:
    later: dict[int, list[TaskSet]] = {}
    for before, tasks in parts:
        if not rule.delay.bound_ms(before):
            continue
        for delay_ms, part in delays(job, tasks, rule, before):
            due_ms = _rounded(s.stamp_ms, delay_ms, rule.delay, before)
            if due_ms > s.stamp_ms:
                later.setdefault(due_ms, []).append(part)
    for due_ms, found in sorted(later.items()):
        tasks = TaskSet.union(found)
        job.later[due_ms] = job.later.get(due_ms, EMPTY) | tasks
        job.delayed = job.delayed | tasks
        s.events.append(Delayed(job.id, due_ms, tasks))
    if later:
        _note_due(s, job, min(later))


def delays(job: Job, tasks: TaskSet, rule: RetryRule, before: int) -> Iterable[tuple[int, TaskSet]]:
    """How long these tasks wait, block by block, after an end that `before` others by this cause
    went before."""
    bound_ms = rule.delay.bound_ms(before)
    if rule.delay.fixed:
        yield bound_ms, tasks
        return
    size = -(-(job.spec.tasks.ranges[-1][1]) // JITTERS_MAX)
    drawn: dict[int, list[TaskSet]] = {}
    for start, stop in tasks.ranges:
        for block in range(start // size, (stop - 1) // size + 1):
            part = TaskSet.of(max(start, block * size), min(stop, (block + 1) * size))
            drawn.setdefault(block, []).append(part)
    for block, parts in drawn.items():
        seed = f"{job.id}/{block}/{rule.cause.value}/{before}".encode()
        draw = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest())
        yield draw * (bound_ms + 1) >> 64, TaskSet.union(parts)


def _rounded(stamp_ms: int, delay_ms: int, delay: Delay, before: int) -> int:
    due_ms = stamp_ms + delay_ms
    step = 1 if delay.fixed else max(1, delay.bound_ms(before) // STEPS)
    return max(stamp_ms, due_ms - due_ms % step)


# --- time -----------------------------------------------------------------------------------------


def _note_due(s: LedgerState, job: Job, due_ms: int) -> None:
    known_ms = s.job_dues.of(job.id)
    if known_ms is None or due_ms < known_ms:
        s.job_dues.set(job.id, due_ms)


def _next_ms(job: Job) -> int | None:
    """When something of the job is due."""
    times = job.spec.times
    due = [min(job.later)] if job.later else []
    if (lapse_ms := exclusive.next_lapse_ms(job)) is not None:
        due.append(lapse_ms)
    if job.awaits:  # they count from where it awaits no more
        times = None
    if times is not None and times.queue_ms is not None and not job.queue_over:
        due.append(job.timed_from_ms + times.queue_ms)
    if times is not None and times.total_ms is not None:
        due.append(job.timed_from_ms + times.total_ms)
    return min(due, default=None)


def begin(s: LedgerState, job: Job) -> None:
    """The job runs, from now on or once more."""
    if job.spec.times is not None:
        job.timed_from_ms, job.queue_over = s.stamp_ms, False
    due_ms = _next_ms(job)
    if due_ms is not None:
        s.job_dues.set(job.id, due_ms)


def next_due_ms(s: LedgerState) -> int | None:
    return s.job_dues.next_ms()


def elapse(s: LedgerState) -> None:
    """All that is due of the job whose time it is."""
    name = s.job_dues.take(s.stamp_ms)
    assert name is not None, "somebody said that it is due"
    job = s.jobs[JobId(name)]
    _wake(job, s.stamp_ms)
    if job.unknown:
        _lapse(s, job)
    if not job.ended:
        _end_times(s, job)
    if not job.ended:
        due_ms_next = _next_ms(job)
        if due_ms_next is not None:
            s.job_dues.set(job.id, due_ms_next)
        s.note_unplaced(job)


def _wake(job: Job, upto_ms: int) -> None:
    for due_ms in [due_ms for due_ms in job.later if due_ms <= upto_ms]:
        job.delayed = job.delayed - job.later.pop(due_ms)


def _lapse(s: LedgerState, job: Job) -> None:
    """Leases of lost owners are over. That costs a task none of its other attempts."""
    rule = job.spec.retry.rule_for(Cause.LEASE_LOST) if job.spec.retry is not None else None
    rule = rule or RetryRule(Cause.LEASE_LOST, LAPSES_MAX)
    for record in exclusive.take_lapsed(s, job):
        revoked = Revoked(job.id, record.grant, record.peer, record.tasks, Cause.LEASE_LOST)
        s.events.append(revoked)
        record.tasks = record.tasks - poison.lapse(s, job, record)
        if record.tasks.ranges:
            count = job.bad_ends.get(Cause.LEASE_LOST, 0) + len(record.tasks)
            job.bad_ends[Cause.LEASE_LOST] = count
        for segment in exclusive.segments(s, job, record):
            final, parts = on_end(s, job, record, segment, rule)
            job.failed = job.failed | final
            for part in parts:
                s.record(job, record, part)
    settle(s, job)
    s.end_if_done(job)


def _end_times(s: LedgerState, job: Job) -> None:
    times = job.spec.times
    if times is None or job.awaits:
        return
    passed_ms = s.stamp_ms - job.timed_from_ms
    if times.total_ms is not None and passed_ms >= times.total_ms:
        job.stopped = f"it had not ended after {times.total_ms:,} ms"
        s.halt(job, JobState.FAILED, Cause.TIMEOUT)
    elif times.queue_ms is not None and not job.queue_over and passed_ms >= times.queue_ms:
        job.queue_over = True
        tasks = job.waiting - job.tried
        if tasks.ranges:
            job.stopped = f"tasks had waited for {times.queue_ms:,} ms"
            job.cancelled = job.cancelled | tasks
            job.waiting = job.waiting - tasks
            _delay_no_more(job, tasks)
            s.end_if_done(job)


def _delay_no_more(job: Job, tasks: TaskSet) -> None:
    """What no peer has owned waits for a moment to come only in a generation that goes on from a
    copy (`exclusive.hold_all`)."""
    if (job.delayed & tasks).ranges:
        job.delayed = job.delayed - tasks
        job.later = {due_ms: left for due_ms, of in job.later.items() if (left := of - tasks)}


def settle(s: LedgerState, job: Job) -> None:
    """After the ends of a command: a fatal one stops the job."""
    if job.stopped and not job.ended and any(_is_fatal(job, cause) for cause in job.alerted):
        s.halt(job, JobState.FAILED, Cause.CANCELLED)


def _is_fatal(job: Job, cause: Cause) -> bool:
    rule = job.spec.retry.rule_for(cause) if job.spec.retry is not None else None
    return rule is not None and rule.severity is Severity.FATAL


def reopen(s: LedgerState, job: Job, tasks: TaskSet) -> None:
    """These tasks have all their attempts again."""
    for cause, counter in list(job.ends.items()):
        job.ends[cause] = counter.without(tasks)
    job.avoids = {peer: left for peer, of in job.avoids.items() if (left := of - tasks)}
    job.demoted, job.sunk = job.demoted - tasks, job.sunk.without(tasks)
    job.tried = job.tried - tasks
    if not job.cancelled.ranges:  # else the rest of it stays given up
        job.stopped = ""
    if job.ended:
        job.alerted, job.warned = {}, False
        begin(s, job)


def rebuild(s: LedgerState) -> None:
    s.job_dues.clear()
    for name in s.running:
        due_ms = _next_ms(s.jobs[name])
        if due_ms is not None:
            s.job_dues.set(name, due_ms)

"""The naive reading of rules by cause and of limits of time, a part of `shadow`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.pace_commands import Warn
from p2psched.model.retry import RetryRule, Severity
from p2psched.testing import shadow_peers
from p2psched.testing.shadow_job import ENDED, UNKNOWN, WAITING, ShadowJob

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

BLOCKS: Final = 4_096
LAPSES: Final = 100  # of leases on a task without a rule for them
RULES: Final = 5  # the level that knows of rules by cause, of limits and of tasks that stall


def begin(s: Shadow, job: ShadowJob) -> None:
    job.since_ms, job.queue_over = s.stamp_ms, False


def rule_of(job: ShadowJob, cause: Cause) -> RetryRule | None:
    rules = job.spec.retry.rules if job.spec.retry is not None else ()
    return next((rule for rule in rules if rule.cause == cause), None)


def end_attempt(s: Shadow, task: tuple[JobId, int], grant: int, rule: RetryRule) -> bool:
    """True if it was the last one of its task."""
    name, index = task
    job = s.jobs[name]
    before = job.ends[index, rule.cause]
    if rule.elsewhere:
        job.avoids.add((index, s.holders[grant][0]))
    if rule.severity is Severity.FATAL:
        job.fatal = job.given_up = True
        alert(s, job, name, rule)
        return True
    if rule.severity is Severity.WARN:
        alert(s, job, name, rule)
    if before >= rule.most:
        if rule.severity is Severity.ERROR:
            alert(s, job, name, rule)
        return True
    job.ends[index, rule.cause] += 1
    job.owner[index] = WAITING
    s.counts["retried by a rule"] += 1
    due_ms = s.stamp_ms + delay_of(name, job, index, rule, before)
    if not rule.delay.fixed:
        step = max(1, bound_of(rule, before) // 1_000)
        due_ms = max(s.stamp_ms, due_ms // step * step)
    if due_ms > s.stamp_ms:
        job.due[index] = due_ms
        s.say("delayed", name, index, due_ms)
    s.say("retried", name, index, grant)
    return False


def alert(s: Shadow, job: ShadowJob, name: JobId, rule: RetryRule) -> None:
    if rule.cause not in job.alerted:
        job.alerted.add(rule.cause)
        s.say("alerted", name, -1, f"{rule.cause} {rule.severity.name.lower()}")


def warn(s: Shadow, command: Warn) -> None:
    job = s.jobs.get(command.job)
    if job is not None and s.level >= RULES and job.owner.get(command.index) == command.grant:
        if not job.warned:
            s.say("alerted", command.job, -1, "stalled warn")
        job.warned = True


def bound_of(rule: RetryRule, before: int) -> int:
    bound = rule.delay.first_ms
    for _ in range(before):
        bound = min(2 * bound, rule.delay.cap_ms)
    return bound


def delay_of(name: JobId, job: ShadowJob, index: int, rule: RetryRule, before: int) -> int:
    if rule.delay.fixed:
        return rule.delay.first_ms
    width = -(-(max(job.owner) + 1) // BLOCKS)
    text = f"{name}/{index // width}/{rule.cause.value}/{before}"
    share = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    return share * (bound_of(rule, before) + 1) // 2**64


def stop(s: Shadow, name: JobId, job: ShadowJob, state: str = "failed") -> None:
    """Nothing of it runs or waits any more."""
    for index in list(job.copies):
        for grant in job.copies.pop(index):
            s.say("revoked", name, index, grant)
    for index, owner in job.owner.items():
        if owner > 0 or owner == UNKNOWN:
            s.say("revoked", name, index, job.unknown.pop(index, owner))
        job.owner[index] = ENDED
    job.due.clear()
    job.mourned.clear()
    job.open.clear()
    job.left, job.state, job.ended_ms = 0, state, s.stamp_ms
    s.say("ended", name, -1, state)


def elapse(s: Shadow, upto_ms: int) -> None:
    upto_ms = min(upto_ms, s.stamp_ms)
    for name, job in s.jobs.items():
        if job.state != "running" or min(_dues(job), default=upto_ms + 1) > upto_ms:
            continue
        job.look_ms = None
        for index in [index for index, due_ms in job.due.items() if due_ms <= s.stamp_ms]:
            del job.due[index]
        if job.until_ms:
            lapse(s, name, job)
        if job.fatal and job.state == "running":
            stop(s, name, job)
        if job.state == "running":
            _end_times(s, name, job)


def lapse_ms(job: ShadowJob, grant: int) -> int:
    """1 % of the lease and half a second behind its end."""
    return job.lost_ms[grant] + job.spec.lease_ms // 100 + 500


def lapse(s: Shadow, name: JobId, job: ShadowJob) -> None:
    """Nobody runs these any more."""
    rule = rule_of(job, Cause.LEASE_LOST) or RetryRule(Cause.LEASE_LOST, LAPSES)
    over = [i for i, grant in job.unknown.items() if lapse_ms(job, grant) <= s.stamp_ms]
    for index in sorted(over):
        grant = job.unknown.pop(index)
        s.say("revoked", name, index, grant)
        s.counts["lapsed"] += 1
        if shadow_peers.blame_lapsed(s, name, index, grant):
            continue
        if end_attempt(s, (name, index), grant, rule):
            job.owner[index], job.causes[index] = ENDED, Cause.LEASE_LOST
            job.left -= 1
            s.say("recorded", name, index, f"{grant} {Cause.LEASE_LOST}")
    s.end_if_done(name, job)


def _dues(job: ShadowJob) -> list[int]:
    times = job.spec.times
    dues = list(job.due.values())
    if job.look_ms is not None:
        dues.append(job.look_ms)
    if job.until_ms:
        dues += [lapse_ms(job, grant) for grant in job.unknown.values()]
    if job.open:
        return dues
    if times is not None and times.total_ms is not None:
        dues.append(job.since_ms + times.total_ms)
    if times is not None and times.queue_ms is not None and not job.queue_over:
        dues.append(job.since_ms + times.queue_ms)
    return dues


def _end_times(s: Shadow, name: JobId, job: ShadowJob) -> None:
    times, passed_ms = job.spec.times, s.stamp_ms - job.since_ms
    if times is None or job.open:
        return
    if times.total_ms is not None and passed_ms >= times.total_ms:
        job.given_up = True
        s.counts["out of time"] += 1
        stop(s, name, job)
    elif times.queue_ms is not None and not job.queue_over and passed_ms >= times.queue_ms:
        job.queue_over = True
        for index, owner in job.owner.items():
            if owner == WAITING and index not in job.tried:
                job.owner[index] = ENDED
                job.left -= 1
                job.given_up = True
                job.dropped.add(index)
                s.counts["waited for too long"] += 1
        s.end_if_done(name, job)

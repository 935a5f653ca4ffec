"""The naive reading of tasks that must not start twice, a part of `shadow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from p2psched.model.commands import Complete, GiveBack, PeerUp
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.once import Decide, Gone, Once, Started, Unsure, Verdict
from p2psched.testing.shadow_job import ENDED, UNKNOWN, WAITING, Away, ShadowJob

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

LEVEL: Final = 5
LEASES: Final = 6  # the level that knows of exclusive tasks
AFRESH: Final = 7  # and of all that a generation before may have begun, and of deaths
EXCLUSIVE: Final = 2


def level_of(start: int) -> int:
    """That knows of it."""
    return LEASES if start == EXCLUSIVE else LEVEL


def lease(s: Shadow, job: ShadowJob, grant: int) -> None:
    if job.spec.start == EXCLUSIVE:
        job.until_ms[grant] = s.stamp_ms + job.spec.lease_ms


def begin_generation(s: Shadow, name: JobId, job: ShadowJob) -> None:
    """Whoever had these in the cluster of before may run them still, for the time of a lease."""
    job.look_ms = s.stamp_ms
    job.mourned.clear()
    for grant in job.unknown.values():
        job.lost_ms[grant] = max(job.lost_ms[grant], s.stamp_ms + job.spec.lease_ms)
    for index, owner in job.owner.items():
        if owner == WAITING:
            hold(s, name, job, index)


def hold(s: Shadow, name: JobId, job: ShadowJob, index: int, since_ms: int | None = None) -> None:
    """For the time of a lease, from now or from then on."""
    begins_ms = s.stamp_ms if since_ms is None else since_ms
    due_ms = begins_ms + job.spec.lease_ms + job.spec.lease_ms // 100 + 500
    if max(job.due.get(index, 0), s.stamp_ms) < due_ms:
        job.due[index], job.look_ms = due_ms, s.stamp_ms
        s.say("delayed", name, index, due_ms)


def begin(s: Shadow, name: JobId, job: ShadowJob) -> None:
    """It is new here, at least."""
    for index in job.owner:
        hold_afresh(s, name, job, index)


def hold_afresh(
    s: Shadow, name: JobId, job: ShadowJob, index: int, since_ms: int | None = None
) -> None:
    """A task waits from now on that may have run then, or when this generation began."""
    if job.spec.start != EXCLUSIVE:
        return
    if since_ms is not None:
        hold(s, name, job, index, max(since_ms, s.generation_ms))
    elif s.generation_ms:
        hold(s, name, job, index, s.generation_ms)


def apply(s: Shadow, command: Once) -> None:
    job, step = s.jobs.get(command.job), command.step
    if job is None or s.level < LEVEL:
        return
    match step:
        case Started(grant=grant, peer=peer, incarnation=incarnation):
            if s.holders.get(grant) == (peer, incarnation) and s.is_live(grant):
                for index in step.tasks:
                    if job.owner.get(index) == grant:
                        job.begun[index] = grant
                        lease(s, job, grant)
        case Unsure():
            _unsure(s, command.job, job, step)
        case Decide():
            _decide(s, command.job, job, step)
        case Gone() if s.level >= AFRESH:
            _gone(s, command.job, job, step)
        case Gone():
            pass


def _unsure(s: Shadow, name: JobId, job: ShadowJob, step: Unsure) -> None:
    for index in step.tasks:
        if job.owner.get(index) == step.grant:
            doubt(s, name, job, index)
        is_kept = job.spec.start == EXCLUSIVE or s.level >= LEASES
        if is_kept and job.unknown.get(index) == step.grant:
            job.disowned.add((index, step.grant))


def _gone(s: Shadow, name: JobId, job: ShadowJob, step: Gone) -> None:
    for index in step.tasks if job.spec.start == EXCLUSIVE else ():
        is_owned = job.owner.get(index) == step.grant == job.begun.get(index)
        if is_owned or job.unknown.get(index) == step.grant:
            job.unknown.pop(index, None)
            job.mourned.pop(index, None)
            job.owner[index] = WAITING
            s.say("revoked", name, index, step.grant)
            s.counts["released early"] += 1


def doubt(s: Shadow, name: JobId, job: ShadowJob, index: int, died_in: Away | None = None) -> bool:
    """Its owner is lost, or does not know: True if the task is unknown now. `died_in`: when its
    process has died, unless the same one is back."""
    grant = job.owner[index]
    if job.begun.get(index) != grant:
        return False
    job.owner[index], job.unknown[index] = UNKNOWN, grant
    job.lost_ms[grant] = job.until_ms.get(grant, 0)
    if died_in is not None and job.spec.start == EXCLUSIVE and s.level >= AFRESH:
        job.mourned[index] = died_in
    s.say("doubted", name, index, grant)
    return True


def note_back(s: Shadow, away: Away) -> None:
    """Nobody has died then."""
    for job in s.jobs.values():
        job.mourned = {i: died_in for i, died_in in job.mourned.items() if died_in is not away}


def heard(s: Shadow, command: Complete | GiveBack | PeerUp) -> None:
    """A lost owner says something of its tasks."""
    if isinstance(command, PeerUp):
        for kept in command.kept:
            if s.holders.get(kept.grant, ("", 0))[0] == command.info.peer:
                _hear(s.jobs.get(kept.job), kept.grant, kept.tasks)
    elif s.holders.get(command.grant, ("", 0))[0] in s.live:
        said = (
            [command.tasks]
            if isinstance(command, GiveBack)
            else [each.tasks for each in command.segments]
        )
        for tasks in said:
            _hear(s.jobs.get(command.job), command.grant, tasks)


def _hear(job: ShadowJob | None, grant: int, tasks: Iterable[int]) -> None:
    for index in tasks if job is not None else ():
        if job is not None and job.unknown.get(index) == grant:
            if (index, grant) in job.disowned:
                continue
            del job.unknown[index]
            job.mourned.pop(index, None)
            job.owner[index] = grant


def _decide(s: Shadow, name: JobId, job: ShadowJob, step: Decide) -> None:
    if job.spec.start == EXCLUSIVE or not step.tasks:
        return
    if any(index not in job.unknown for index in step.tasks):
        return
    for index in step.tasks:
        grant = job.unknown.pop(index)
        s.say("decided", name, index, int(step.verdict))
        s.say("revoked", name, index, grant)
        if step.verdict is Verdict.RUN_AGAIN:
            job.owner[index] = WAITING
            continue
        cause = Cause.OK if step.verdict is Verdict.SUCCEEDED else Cause.PEER_LOST
        job.owner[index], job.causes[index] = ENDED, cause
        job.left -= 1
        s.say("recorded", name, index, f"{grant} {cause}")
    s.end_if_done(name, job)

"""The naive reading of what keeps jobs and their results, a part of `shadow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.model.commands import Drain, Forget, GiveBack, Held, NewGeneration, Retry
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.once import Start
from p2psched.testing import shadow_backups, shadow_once, shadow_retries
from p2psched.testing.shadow_job import WAITING, ShadowJob

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

GENERATIONS: Final = 2  # the level that knows of them


def forget(s: Shadow, job: ShadowJob, command: Forget) -> None:
    """Whoever asks may; by itself only what is as it was when that was decided."""
    is_asked_for = command.ended_ms is None
    too_early = command.due_ms is not None and s.stamp_ms < command.due_ms
    if job.state == "running" or too_early:
        return
    if is_asked_for or (not job.pinned and job.ended_ms == command.ended_ms):
        del s.jobs[command.job]
        s.forgotten[command.job] = None
        s.say("forgotten", command.job)


def retry(s: Shadow, job: ShadowJob, command: Retry) -> None:
    if job.state == "cancelled" or job.spec != command.spec:
        return
    out_of_reach = s.out_of_reach(job)
    given_up = (
        {i for i in job.owner if i not in job.causes} if job.state == "failed" else job.dropped
    )
    for index in sorted(given_up):
        if not command.tasks or index in command.tasks:
            job.causes[index] = Cause.CANCELLED  # as it were
            job.dropped.discard(index)
        else:
            job.dropped.add(index)
    for index, cause in sorted(job.causes.items()):
        if command.tasks and index not in command.tasks:
            continue
        if cause is not Cause.OK or index in out_of_reach:
            reopen(s, job, command.job, index)


def reopen(s: Shadow, job: ShadowJob, name: JobId, index: int) -> None:
    """The task waits as if it had never run."""
    for at in [at for at in job.blobs if at[0] == index]:
        digest, _ = job.blobs.pop(at)
        s.replaced.append((name, at, digest))
    if job.causes[index] is Cause.CANCELLED:
        shadow_once.hold_afresh(s, name, job, index, job.ended_ms)
    shadow_once.hold_afresh(s, name, job, index)
    del job.causes[index]
    del job.failures[index], job.spaceless[index]
    for key in [key for key in job.ends if key[0] == index]:
        del job.ends[key]
    job.given_up = bool(job.dropped)
    job.tried.discard(index)
    job.thinned.discard(index)
    job.speculated.discard(index)
    job.avoids = {(task, peer) for task, peer in job.avoids if task != index}
    if job.state != "running":
        job.alerted.clear()
        job.fatal = job.warned = False
        shadow_retries.begin(s, job)
    job.killed.pop(index, None)
    del job.deaths[index]
    job.owner[index] = WAITING
    job.left += 1
    job.state, job.ran_again = "running", True
    s.say("reopened", name, index)


def drain(s: Shadow, command: Drain | GiveBack) -> None:
    if isinstance(command, Drain):
        if command.peer in s.live:
            s.drains[command.peer] = command.mode
        return
    name, grant = command.job, command.grant
    if command.stall is None:
        shadow_once.heard(s, command)
    job = s.jobs.get(name)
    for index in command.tasks if job is not None and grant else ():  # 0: only told
        if job is not None and grant in job.copies.get(index, []):
            shadow_backups.drop(job, index, grant)
            job.speculated.discard(index)
            s.say("given back", name, index, grant)
        elif job is not None and job.owner.get(index) == grant:
            if command.stall is not None and shadow_once.doubt(s, name, job, index):
                continue
            shadow_backups.let_go(s, name, job, index)
            s.say("given back", name, index, grant)
            if command.by:
                s.say("preempted", name, index, f"{grant} {command.by}")


def begin_generation(s: Shadow, command: NewGeneration) -> None:
    if command.generation <= s.generation:
        return
    s.generation = command.generation
    s.index = max(s.index, (command.generation << 40) + command.start)
    for name, job in s.jobs.items():
        for index in list(job.copies):
            shadow_backups.drop_all(s, name, job, index)
        for index, grant in job.owner.items():
            if grant > 0 and job.spec.start == Start.ONCE:
                job.begun[index] = grant
                shadow_once.doubt(s, name, job, index)
            elif grant > 0:
                job.owner[index] = WAITING
                s.say("revoked", name, index, grant)
        if job.spec.start == shadow_once.EXCLUSIVE and job.state == "running":
            shadow_once.begin_generation(s, name, job)
        for _, holders in job.blobs.values():
            holders.clear()
            holders.add(command.peer)
    s.live.clear()
    s.level = max(s.level, GENERATIONS)
    if s.level >= shadow_once.AFRESH:
        s.generation_ms = s.stamp_ms
    s.levels.clear()
    s.offers.clear()
    s.drains.clear()
    s.away.clear()


def held(s: Shadow, job: ShadowJob, command: Held) -> None:
    lost = job.lost
    for index, blob_name, digest in command.blobs:
        known, holders = job.blobs.get((index, blob_name), (b"", set()))
        if known == digest and command.held:
            holders.add(command.peer)
        elif known == digest:
            holders.discard(command.peer)
    for index in sorted(job.lost - lost):
        s.say("lost", command.job, index)


def forget_peer(s: Shadow, peer: PeerId) -> None:
    if not s.live[peer][1] and not s.owned_by(peer):
        for known in (s.live, s.levels, s.drains, s.away, s.offers):
            known.pop(peer, None)
        s.gone.add(peer)

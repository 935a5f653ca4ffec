"""The naive reading of tasks that run on more peers than their owner, a part of `shadow`.

`ShadowJob.copies`: task -> the grants of its backups, oldest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.model.backing import Backing, BackUp
from p2psched.model.commands import Complete, DrainMode
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.pace_rules import OnStall
from p2psched.testing import shadow_needs, shadow_peers, shadow_retries
from p2psched.testing.shadow_job import ENDED, WAITING, ShadowJob

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

LEVEL: Final = 6  # that knows of it
SUSPECT: Final = 2


def is_wanted(spec: JobSpec) -> bool:
    return spec.backing is not None or may_speculate(spec)


def may_speculate(spec: JobSpec) -> bool:
    if spec.backing is not None and spec.backing.speculate:
        return True
    return spec.pace is not None and spec.pace.on_stall is OnStall.SPECULATE


def replicas_of(spec: JobSpec) -> int:
    return (spec.backing or Backing()).replicas


def back_up(s: Shadow, command: BackUp) -> None:
    name, grant, peer = command.job, s.index, command.peer
    job = s.jobs.get(name)
    if job is None or s.level < LEVEL or job.state != "running":
        return
    if command.ends:
        for copied, index, copy in copies_on(s, peer):
            if copied == name and index in command.tasks:
                drop(job, index, copy)
                s.say("revoked", name, index, copy)
        return
    if s.live.get(peer) != (command.incarnation, True) or s.holds_suspects(peer):
        return
    if s.drains.get(peer, DrainMode.OFF) is not DrainMode.OFF:
        return
    taken = [index for index in command.tasks if _may(s, job, index, command)]
    if command.speculates:
        left = max(3, len(job.owner) * 5 // 100) - len(job.speculated)
        taken = taken[: max(0, left)]
    taken = shadow_needs.may_own(s, name, peer, taken)
    s.holders[grant] = (peer, command.incarnation)
    s.granted_tasks[grant] = (name, frozenset(taken))
    s.stays.add(grant)
    for index in taken:
        job.copies.setdefault(index, []).append(grant)
        if command.speculates:
            job.speculated.add(index)
        s.say("backed up", name, index, grant)
        s.say("granted", name, index, grant)


def _may(s: Shadow, job: ShadowJob, index: int, command: BackUp) -> bool:
    """It runs, elsewhere, and not on enough peers."""
    owner, copies = job.owner.get(index, ENDED), job.copies.get(index, [])
    if owner <= 0 or not s.is_live(owner):
        return False
    if command.peer in {s.holders[grant][0] for grant in (owner, *copies)}:
        return False
    if index in job.thinned or (index, command.peer) in job.avoids or job.deaths[index] >= SUSPECT:
        return False
    if command.speculates:
        return may_speculate(job.spec) and not copies and index not in job.speculated
    return len(copies) < replicas_of(job.spec) - 1


def let_go(s: Shadow, name: JobId, job: ShadowJob, index: int) -> None:
    """Its owner has it no more: its oldest backup is the owner, or it waits."""
    copies = job.copies.get(index)
    if not copies:
        job.owner[index] = WAITING
        return
    job.owner[index] = copies.pop(0)
    job.speculated.discard(index)
    if not copies:
        del job.copies[index]
    s.say("promoted", name, index, job.owner[index])


def drop(job: ShadowJob, index: int, grant: int) -> None:
    copies = job.copies[index]
    copies.remove(grant)
    if not copies:
        del job.copies[index]


def drop_all(s: Shadow, name: JobId, job: ShadowJob, index: int) -> None:
    for grant in job.copies.pop(index, []):
        s.say("revoked", name, index, grant)


def end(s: Shadow, command: Complete, job: ShadowJob, index: int, segment: Segment) -> bool:
    """An end under a grant. True if it is none of the task's: others run it."""
    name, grant = command.job, command.grant
    copies, owner = job.copies.get(index, []), job.owner.get(index, ENDED)
    if not copies or grant not in (owner, *copies):
        return False
    if segment.cause is Cause.OK:
        if owner != grant:
            s.say("revoked", name, index, owner)
            job.owner[index] = grant
            job.speculated.discard(index)
            drop(job, index, grant)
        drop_all(s, name, job, index)
        return False
    if owner == grant:
        let_go(s, name, job, index)
    else:
        drop(job, index, grant)
    job.thinned.add(index)
    s.say("retried", name, index, grant)
    rule = shadow_retries.rule_of(job, segment.cause)
    if rule is not None and rule.elsewhere:
        job.avoids.add((index, s.holders[grant][0]))
    return True


def copies_on(s: Shadow, peer: PeerId) -> list[tuple[JobId, int, int]]:
    """Backups there: job, task, grant."""
    return [
        (name, index, grant)
        for name, job in s.jobs.items()
        for index, copies in job.copies.items()
        for grant in copies
        if s.holders[grant][0] == peer
    ]


def lose(s: Shadow, name: JobId, index: int, grant: int, *, died: bool) -> None:
    """A peer is gone that ran it, too."""
    job = s.jobs[name]
    drop(job, index, grant)
    job.speculated.discard(index)
    s.say("revoked", name, index, grant)
    shadow_peers.blame(s, name, index, grant, died=died)

"""Tasks that kill their peers: who is suspected, and who has been seen to do it.

The ledger does not know what a peer had started when it died, so all that it owned may have killed
it. A task that was there `SUSPECT_DEATHS` times is a suspect, and suspects are granted only to a
peer that owns nothing, which then gets nothing else. Only a death of a peer that owned exactly one
task counts as a kill; at `POISON_DEATHS` of them the task has failed.

A peer that was stopped, or cut off and back as the same process, has not died. While it is away
nobody can tell: what it owned alone counts as killed then, and no more once it is back. Exclusive
tasks count where their lease has lapsed: until then nobody else is granted them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from p2psched.core import backing, once
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.placement import Candidate
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model import chunks, items
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import EMPTY, TaskSet

POISON_DEATHS: Final = 3  # of peers that owned nothing but the task
GROUPS_MAX: Final = 64  # that suspects of equal standing are split into


def note_down(s: LedgerState, row: PeerRow, *, stopped: bool) -> None:
    """A peer is away from now on: remember what its death would be blamed on."""
    row.stopped = stopped
    row.alone = row.blamed = None
    if stopped or row.owned != 1:
        return
    for job in s.jobs_with_grants():
        for held in (*job.grants.values(), *job.backups.values()):
            if held.peer == row.info.peer:
                row.alone = job.id, held.tasks.first


def note_back(s: LedgerState, row: PeerRow) -> None:
    """A peer is back, and it is the same process: what was thought to have killed it has not."""
    if row.blamed is None:
        return
    job, index = s.jobs.get(row.blamed[0]), row.blamed[1]
    killed = job.killed.get(index, []) if job is not None else []
    if row.info.peer in killed:  # and not run again since
        killed.remove(row.info.peer)


def lose(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool) -> None:
    """Take tasks from an owner that is lost: their backups go on, or they wait, or have failed."""
    if held.started.ranges:
        tasks = once.doubt(s, job, held, tasks, died=died)
    if not tasks:
        return
    s.lose(job, held, tasks)
    left = backing.promote(s, job, tasks) if job.backups else tasks
    job.losses = job.losses.plus(left)
    job.waiting = job.waiting | left
    if died:
        _blame(s, job, held, tasks)


def lose_backup(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool) -> None:
    """Who ran them, too, is lost; their owners go on."""
    if not tasks.ranges:
        return
    s.drop_backup(job, held, tasks, Cause.PEER_LOST)
    job.speculated = job.speculated - tasks  # that says nothing of them
    job.attempts_lost += len(tasks)
    if died:
        _blame(s, job, held, tasks)


def leave(s: LedgerState, job: Job, peer: PeerId, *, died: bool) -> None:
    """A peer is down: what it backed up is left to the owners, and what it owns to backups."""
    for held in list(job.backups.values()):
        if held.peer == peer:
            lose_backup(s, job, held, held.tasks, died=died)
    backed = job.backed
    for held in list(job.grants.values()) if backed.ranges else ():
        if held.peer == peer:
            lose(s, job, held, held.tasks & backed, died=died)


def _blame(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet) -> None:
    job.deaths = job.deaths.plus(tasks)
    if job.suspects:
        s.suspected[job.id] = None
    row = s.peers[held.peer]
    index = tasks.first
    if row.alone == (job.id, index):
        row.alone, row.blamed = None, row.alone
        if _has_killed(job, held, index) and index in job.waiting:
            _fail(s, job, held, index)


def lapse(s: LedgerState, job: Job, record: HeldGrant) -> TaskSet:
    """The lease on these is over, so their owner is lost for good, and has died if nobody knows
    better. What that was the last death for is returned, and has failed."""
    if not record.died.ranges:
        return EMPTY
    job.deaths = job.deaths.plus(record.died)
    if job.suspects:
        s.suspected[job.id] = None
    poisonous = TaskSet.from_indices(i for i in record.alone if _has_killed(job, record, i))
    row = s.peers.get(record.peer)
    if row is not None and not row.live and row.info.incarnation == record.incarnation:
        row.blamed = (job.id, record.alone.first) if record.alone.ranges else row.blamed
    job.attempts_lost += len(poisonous)
    for index in poisonous:
        _fail(s, job, record, index)
    return poisonous


def _has_killed(job: Job, held: HeldGrant, index: int) -> bool:
    """Once more; True if that is too often."""
    killed = job.killed.setdefault(index, [])
    killed.append(held.peer)
    return len(killed) >= POISON_DEATHS


def _fail(s: LedgerState, job: Job, held: HeldGrant, index: int) -> None:
    task = TaskSet.of(index, index + 1)
    job.waiting = job.waiting - task
    job.failed = job.failed | task
    item = items.pack({"type": "PeerLost", "message": _story(s, job.killed[index])})
    s.record(job, held, Segment(index, index + 1, Cause.PEER_LOST, chunks.pack([item])))


def _story(s: LedgerState, killed: list[PeerId]) -> str:
    names = [s.name_of(peer) for peer in killed]
    return (
        f"its peer died {len(killed)} times while it ran nothing else ({', '.join(names)}): see "
        "what the task does to a machine (memory, devices, signals) before you run it again"
    )


def grantable(job: Job, row: PeerRow, tasks: TaskSet) -> TaskSet:
    """What of `tasks` the peer may be granted together. Who proposed it may not have seen all that
    was granted before: that suspects are alone is decided here."""
    if row.suspects:
        return EMPTY
    if not job.deaths.levels:
        return tasks
    suspects = tasks & job.suspects
    others = tasks - suspects
    if others or not suspects:
        return others
    return EMPTY if row.owned else suspects


def groups(job: Job) -> Iterator[TaskSet]:
    """The suspects that wait, in the groups that are granted alone: at most `GROUPS_MAX` of those
    that saw equally many deaths, so that a few are tried one by one, and of many only the group
    that kills again is split further. The least suspect come first."""
    for _, part in job.deaths.split(job.placeable & job.suspects):
        rest = part
        while rest:
            group = rest.take(-(-len(rest) // GROUPS_MAX))
            rest = rest - group
            yield group


def business(
    c: Candidate, killed: Sequence[PeerId]
) -> tuple[bool, bool, float, bool, bool, int, PeerId]:
    """For a suspect: least first. If it may be had, a peer that this task has not killed yet, for
    it may have been the machine: the last try waits until it may be had. And not the coordinator:
    its death stops more than its tasks."""
    again = c.peer in killed
    last = again and len(killed) >= POISON_DEATHS - 1
    return last, c.owned > 0, c.load_us / c.slots, again, c.is_self, c.slots, c.peer

"""The part of the fold that keeps exclusive tasks from running at two peers (ADR 0063).

Such a task starts as one that must not start twice does: after its owner's `Started`, which gives
its grant a lease, counted from the ledger's own time. The owner repeats it as long as tasks run; by
its own clock it counts each from before it was sent, and what runs is ended there in time. If the
owner is lost its tasks are unknown, and what it says of them counts, until the lease is over and
a margin with it. Then nobody runs them any more, and they wait, or have failed (`retrying.lapse`).

Invariant: where such a task waits or is granted, no lease on it that was given before is alive.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState
from p2psched.model import chunks, items
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.once import Start, margin_ms
from p2psched.model.retry_events import Delayed
from p2psched.model.taskset import EMPTY, TaskSet

EXCLUSIVE: Final = Start.EXCLUSIVE  # as `machine._OK`
# An older version forgets, of what is not waiting then, that a generation before may run it.
AFRESH_LEVEL: Final = 7


def lease(s: LedgerState, job: Job, held: HeldGrant) -> None:
    """From now on."""
    if job.spec.start is EXCLUSIVE:
        held.until_ms = max(held.until_ms, s.stamp_ms + job.spec.lease_ms)


def lapse_ms(job: Job, record: HeldGrant) -> int:
    """Where what a lost owner had may run elsewhere."""
    return record.until_ms + margin_ms(job.spec.lease_ms)


def next_lapse_ms(job: Job) -> int | None:
    """The first of these; None if the job has none."""
    if job.spec.start is not EXCLUSIVE:
        return None
    return min((lapse_ms(job, record) for record in job.unknown.values()), default=None)


def note(s: LedgerState, job: Job) -> None:
    """Tasks of the job have become unknown: they are due."""
    due_ms, known_ms = next_lapse_ms(job), s.job_dues.of(job.id)
    if due_ms is not None and (known_ms is None or due_ms < known_ms):
        s.job_dues.set(job.id, due_ms)


def note_death(s: LedgerState, job: Job, record: HeldGrant, tasks: TaskSet) -> None:
    """Of an owner with which these became unknown. What it means is said where their lease has
    lapsed (`poison.lapse`): until then the same process may be back."""
    record.died = record.died | tasks
    if s.peers[record.peer].alone == (job.id, tasks.first):
        record.alone = record.alone | tasks


def note_back(s: LedgerState, peer: PeerId, incarnation: int) -> None:
    """The process that was this incarnation has not died, or wanted to."""
    for job in s.jobs_with_grants():
        for record in job.unknown.values():
            if (record.peer, record.incarnation) == (peer, incarnation):
                record.died = record.alone = EMPTY


def take_lapsed(s: LedgerState, job: Job) -> list[HeldGrant]:
    """What nobody runs any more; it is not unknown from now on."""
    due_ms = next_lapse_ms(job)
    if due_ms is None or due_ms > s.stamp_ms:
        return []
    lapsed = [record for record in job.unknown.values() if lapse_ms(job, record) <= s.stamp_ms]
    for record in lapsed:
        del job.unknown[record.grant]
    return lapsed


def segments(s: LedgerState, job: Job, record: HeldGrant) -> list[Segment]:
    """How attempts ended whose lease has lapsed."""
    lease_s = job.spec.lease_ms / 1000
    message = f"{s.name_of(record.peer)} was not heard before its lease of {lease_s:g} s was over"
    item = items.pack({"type": "LeaseLost", "message": message})
    return [
        Segment(start, stop, Cause.LEASE_LOST, chunks.pack([item] * (stop - start)))
        for start, stop in record.tasks.ranges
    ]


def begin_generation(s: LedgerState) -> None:
    for name in s.running:
        hold_all(s, s.jobs[name])
    if s.level >= AFRESH_LEVEL:
        s.generation_ms = s.stamp_ms


def hold_all(s: LedgerState, job: Job) -> None:
    """The ledger goes on from a copy. What has begun since, also of those that only waited there,
    may have a lease that nobody knows of here: all of it waits for so long. Who died there is not
    known either."""
    if job.spec.start is not EXCLUSIVE:
        return
    until_ms = s.stamp_ms + job.spec.lease_ms
    for record in job.unknown.values():
        record.until_ms = max(record.until_ms, until_ms)
        record.died = record.alone = EMPTY
    due_ms = until_ms + margin_ms(job.spec.lease_ms)
    for early_ms in [moment_ms for moment_ms in job.later if moment_ms < due_ms]:
        job.delayed = job.delayed - job.later.pop(early_ms)
    _hold(s, job, job.waiting - job.delayed, due_ms)
    s.note_unplaced(job)


def hold_again(s: LedgerState, job: Job, tasks: TaskSet, given_up: TaskSet) -> None:
    """These wait again. Those that were given up may have run when the job was stopped: whoever
    had them may still be about to end them.

    What is given up while the job goes on (the limit for the queue) nobody has owned since it
    waited for the first time, or again: so the newest end of the job, or none, is the one to count
    from. The generation before knows of no such end, and may have begun any of them since."""
    if job.spec.start is EXCLUSIVE:
        _hold_since(s, job, given_up, max(job.ended_ms, s.generation_ms))
        if s.generation_ms:
            _hold_since(s, job, tasks - given_up, s.generation_ms)


def hold_new(s: LedgerState, job: Job) -> None:
    """A job is submitted. The generation before may know it, and have begun it since."""
    if s.generation_ms and job.spec.start is EXCLUSIVE:
        _hold_since(s, job, job.waiting, s.generation_ms)
        s.note_unplaced(job)


def _hold_since(s: LedgerState, job: Job, tasks: TaskSet, begin_ms: int) -> None:
    """For a lease that was given then at the latest."""
    due_ms = begin_ms + job.spec.lease_ms + margin_ms(job.spec.lease_ms)
    if due_ms > s.stamp_ms:
        _hold(s, job, tasks, due_ms)


def _hold(s: LedgerState, job: Job, tasks: TaskSet, due_ms: int) -> None:
    if tasks.ranges:
        job.later[due_ms] = job.later.get(due_ms, EMPTY) | tasks
        job.delayed = job.delayed | tasks
        s.events.append(Delayed(job.id, due_ms, tasks))
    s.job_dues.set(job.id, s.stamp_ms)  # they may have changed: see `retrying.elapse`

"""Bugs in whose turn it is to hold a lock, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from unittest.mock import patch

from p2psched.core import holding, locks, poison
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.lock_table import Lock
from p2psched.core.raft.timing import Timing
from p2psched.core.state import LedgerState
from p2psched.model.lock_actions import ClaimId
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

AWAY: Final = Faults(cut_every_ms=3_000, cut_ms_max=9_000, cuts=("alone",))


def _grants_all() -> Planted:
    return patch.object(holding, "grantable", lambda s, job, tasks: tasks)


def _overtakes() -> Planted:
    grantable = holding.grantable

    def last_first(s: LedgerState, job: Job, tasks: TaskSet) -> TaskSet:
        found = grantable(s, job, tasks)
        return job.waiting - job.waiting.take(len(job.waiting) - 1) if found else found

    return patch.object(holding, "grantable", last_first)


def _keeps_for_the_ended() -> Planted:
    let_go = holding._let_go

    def forgetful(s: LedgerState, job: Job, claims: Iterable[ClaimId]) -> None:
        if not job.ended:
            let_go(s, job, claims)

    return patch.object(holding, "_let_go", forgetful)


def _jumps_the_queue() -> Planted:
    grant_next = locks._grant_next

    def unfair(s: LedgerState, lock: Lock) -> None:
        if lock.waiters:
            lock.waiters.move_to_end(next(reversed(lock.waiters)), last=False)
        grant_next(s, lock)

    return patch.object(locks, "_grant_next", unfair)


def _keeps_for_the_lost() -> Planted:
    """As tasks without a lock are kept for a peer that may be back."""
    lose = poison.lose

    def patient(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool) -> None:
        if not (held.token and job.orphaned & tasks and s.is_down(held.peer, held.incarnation)):
            lose(s, job, held, tasks, died=died)

    return patch.object(poison, "lose", patient)


HOLD_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=AWAY,
        timing=Timing(),
        broken=broken,
        jobs_max=20,
        events=3_000,
        holding=True,
    )
    for name, plant, broken in (
        ("a lock is held by all tasks that want it", _grants_all, "P6"),
        ("tasks of an ordered queue overtake", _overtakes, "P6"),
        ("a job that has ended keeps its lock", _keeps_for_the_ended, "P6"),
        ("who asked last for a lock is next", _jumps_the_queue, "P6"),
        ("a lock is kept for a lost peer's task", _keeps_for_the_lost, "P6"),
    )
)

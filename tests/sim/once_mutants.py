"""Bugs in what keeps tasks from starting twice, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core import keeping, once, peering, poison
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.raft.timing import Timing
from p2psched.core.starting import Starting
from p2psched.core.state import LedgerState
from p2psched.model.commands import Outcome, PeerDown, Retry
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

LOSSES: Final = Faults(
    crash_every_ms=1_500,
    power_loss=0.2,
    restart_ms_max=3_000,
    cut_every_ms=2_000,
    cut_ms_max=6_000,
    cuts=("alone",),
    drain_every_ms=2_000,
)


def _starts_at_once() -> Planted:
    """What is proposed may begin: nobody waits for the commit."""
    return patch.object(Starting, "is_clear", lambda self, part: True)


def _runs_again() -> Planted:
    """A lost task waits, as any other does."""
    return patch.object(once, "doubt", lambda s, job, held, tasks, **_: tasks)


def _forgets_at_a_restart() -> Planted:
    """Only who is declared down leaves something unknown."""

    def lose(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool) -> None:
        held.started = EMPTY
        _lose(s, job, held, tasks, died=died)

    _lose = poison.lose
    return patch.object(poison, "lose", lose)


def _hears_nobody() -> Planted:
    """What a lost owner brings is refused at once."""
    return patch.object(once, "readmit", lambda s, job, grant, tasks: None)


def _hears_after_the_decision() -> Planted:
    """A decision does not end the grant."""
    return patch.object(once, "_forget", lambda job, record, tasks: None)


def _ends_with_unknown() -> Planted:
    """A job is over although some of it is unknown."""

    def end_if_done(self: LedgerState, job: Job) -> None:
        unknown, job.unknown = job.unknown, {}
        _end_if_done(self, job)
        job.unknown = unknown

    _end_if_done = LedgerState.end_if_done
    return patch.object(LedgerState, "end_if_done", end_if_done)


def _retries_the_unknown() -> Planted:
    """`job retry` takes what is unknown, too."""

    def retry(s: LedgerState, command: Retry) -> Outcome:
        job = s.jobs.get(command.job)
        if job is not None and job.unknown and not job.ended:
            tasks, job.unknown = job.doubtful, {}
            job.waiting = job.waiting | tasks
            s.note_unplaced(job)
        return _retry(s, command)

    _retry = keeping.retry
    return patch.object(keeping, "retry", retry)


def _is_down_as_if_nothing_ran() -> Planted:
    """A peer that is declared down leaves all of its tasks to be placed."""

    def peer_down(s: LedgerState, command: PeerDown) -> Outcome:
        with patch.object(once, "doubt", lambda s, job, held, tasks, **_: tasks):
            return _peer_down(s, command)

    _peer_down = peering.peer_down
    return patch.object(peering, "peer_down", peer_down)


ONCE_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=LOSSES,
        timing=Timing(),
        broken=broken,
        jobs_max=40,
        events=3_000,
        once=True,
        keeping=plant is _retries_the_unknown,
    )
    for name, plant, broken in (
        ("Started is proposed and not awaited", _starts_at_once, "E8"),
        ("what is unknown runs again", _runs_again, "P6"),
        ("a restarted peer's tasks count as not begun", _forgets_at_a_restart, "P6"),
        ("a lost owner is not heard any more", _hears_nobody, "P6"),
        ("a decision leaves the grant", _hears_after_the_decision, "in two places"),
        ("a job ends with unknown tasks", _ends_with_unknown, "P6"),
        ("job retry takes unknown tasks", _retries_the_unknown, "P6"),
        ("down peers leave nothing unknown", _is_down_as_if_nothing_ran, "P6"),
    )
)

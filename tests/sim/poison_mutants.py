"""Bugs in who is blamed for a peer's death, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core import poison
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.raft.timing import Timing
from p2psched.core.state import LedgerState
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def _blames_everybody() -> Planted:
    """Each task that a dead peer owned, as if it had been alone there."""
    lose = poison.lose

    def unjust(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, *, died: bool) -> None:
        row = s.peers[held.peer]
        for index in tasks:
            if not row.stopped:
                row.alone = job.id, index
            lose(s, job, held, TaskSet.of(index, index + 1), died=died)

    return patch.object(poison, "lose", unjust)


def _lets_suspects_meet() -> Planted:
    return patch.object(poison, "grantable", lambda job, row, tasks: tasks)


def _calls_a_cut_a_death() -> Planted:
    return patch.object(poison, "note_back", lambda s, row: None)


POISON_MUTANTS: Final = (
    Mutant(
        name="a death is blamed on all that was there",
        plant=_blames_everybody,
        faults=Faults(),
        timing=Timing(),
        broken="P6",
        jobs_max=20,
        events=4_000,
        poison=True,
    ),
    Mutant(
        name="suspects run beside others",
        plant=_lets_suspects_meet,
        faults=Faults(crash_every_ms=1_500, delay_us=20_000, tail=0.1),
        timing=Timing(),
        broken="P6",
        jobs_max=40,
        events=4_000,
        poison=True,
    ),
    Mutant(
        name="who was cut off counts as dead for ever",
        plant=_calls_a_cut_a_death,
        faults=Faults(cut_every_ms=3_000, cut_ms_max=9_000, cuts=("alone",)),
        timing=Timing(),
        broken="P6",
        jobs_max=60,
        events=3_000,
        poison=True,
    ),
)

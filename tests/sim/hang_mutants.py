"""Bugs in ending what never ends by itself, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core.owner import Owner, OwnerEffect, StopBatch
from p2psched.core.raft.timing import Timing
from p2psched.model.commands import Grant
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def _leaves_running() -> Planted:
    on_revoked = Owner.on_revoked

    def lazy(
        owner: Owner, job: JobId, grant: Grant, tasks: TaskSet, cause: Cause
    ) -> list[OwnerEffect]:
        effects = on_revoked(owner, job, grant, tasks, cause)
        return [effect for effect in effects if not isinstance(effect, StopBatch)]

    return patch.object(Owner, "on_revoked", lazy)


HANG_MUTANTS: Final = (
    Mutant(
        name="what is cancelled or granted anew is not stopped",
        plant=_leaves_running,
        faults=Faults(cut_every_ms=3_000, cut_ms_max=9_000, cuts=("alone",)),
        timing=Timing(),
        broken="L5",
        jobs_max=20,
        events=3_000,
        hanging=True,
    ),
)

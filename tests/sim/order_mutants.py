"""Bugs in what comes after other jobs, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core import dependencies
from p2psched.core.jobs import Job
from p2psched.core.raft.timing import Timing
from p2psched.core.state import LedgerState
from p2psched.model.ids import JobId
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

CALM: Final = Faults(pause_every_ms=6_000, pause_ms_max=500, drop=0.01)


def _waits_for_none() -> Planted:
    """Released before the commit of what it comes after."""
    return patch.object(dependencies, "attach", lambda _state, _job: None)


def _forgets_a_release() -> Planted:
    """Who comes after several goes on waiting for the last."""
    _release = dependencies._release

    def release(s: LedgerState, job: Job, by: JobId) -> None:
        assert job.spec.after is not None
        if len(job.spec.after.parents) > 1:
            job.awaits[by] = None
            s.lineage.attach(job)
        else:
            _release(s, job, by)

    return patch.object(dependencies, "_release", release)


def _takes_any_end() -> Planted:
    """Whatever became of what it comes after."""

    def abort(s: LedgerState, job: Job, by: Job) -> None:
        if not job.awaits:
            dependencies._release(s, job, by.id)

    return patch.object(dependencies, "_abort", abort)


def _mutant(name: str, plant: object, broken: str) -> Mutant:
    assert callable(plant)
    return Mutant(
        name=name,
        plant=plant,
        faults=CALM,
        broken=broken,
        timing=Timing(),
        events=4_000,
        jobs_max=30,
        ordering=True,
    )


ORDER_MUTANTS: Final = (
    _mutant("a job begins beside those that it comes after", _waits_for_none, "P6"),
    _mutant("a release is forgotten", _forgets_a_release, "E13"),
    _mutant("a job is released by a bad end, too", _takes_any_end, "P6"),
)

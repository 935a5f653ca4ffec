"""Bugs in what becomes of tasks that fall silent, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core.pace import Finding, Pace
from p2psched.core.pacing import Pacing
from p2psched.core.raft.timing import Timing
from p2psched.model.execution import TaskReport
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def _only_warns() -> Planted:
    """Nothing is ended, whatever the job asks for."""
    return patch.object(Pacing, "_act", lambda self, task, report: [])


def _hears_no_words() -> Planted:
    """Silence is counted from the start of a task."""

    def find(self: Pace, report: TaskReport) -> Finding:
        assert self._heartbeat_ms is not None
        return Finding.SILENT if report.ran_ms >= self._heartbeat_ms else Finding.FINE

    return patch.object(Pace, "_find", find)


SILENCE_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=Faults(crash_every_ms=4_000, restart_ms_max=2_000),
        broken="E11",
        timing=Timing(),
        events=4_000,
        jobs_max=40,
        retrying=True,
        stalling=True,
        saving=True,
    )
    for name, plant in (
        ("what is silent is not ended", _only_warns),
        ("a task that speaks is ended as silent", _hears_no_words),
    )
)

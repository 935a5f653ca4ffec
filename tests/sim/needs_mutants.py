"""Bugs in who may own what jobs need, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core import fitting, peering
from p2psched.core.jobs import Job
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import PeerUp
from p2psched.model.ids import PeerId
from p2psched.model.needs import NOTHING
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

CRASHES: Final = Faults(crash_every_ms=2_000)


def _grants_what_does_not_fit() -> Planted:
    def grantable(_s: LedgerState, _job: Job, _row: PeerRow, tasks: TaskSet) -> TaskSet:
        return tasks

    return patch.object(fitting, "grantable", grantable)


def _shuns_nobody() -> Planted:
    return patch.object(fitting, "_is_shunned", lambda s, job, peer: False)


def _forgets_what_is_promised() -> Planted:
    def owned_by(_job: Job, _peer: PeerId) -> int:
        return 0

    return patch.object(fitting, "owned_by", owned_by)


def _keeps_what_the_last_process_had() -> Planted:
    begin = peering._begin_life

    def keeping(row: PeerRow, command: PeerUp) -> None:
        had = row.offers
        begin(row, command)
        if had != NOTHING:
            row.offers = had

    return patch.object(peering, "_begin_life", keeping)


NEEDS_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=CRASHES,
        broken=broken,
        jobs_max=24,
        events=3_000,
        choosing=True,
    )
    for name, plant, broken in (
        ("a peer owns more than its GPUs are enough for", _grants_what_does_not_fit, "P6"),
        ("a job that stays apart is joined by the other", _shuns_nobody, "P6"),
        ("nobody is apart from anybody", _forgets_what_is_promised, "P6"),
        ("a new process has what the last one had", _keeps_what_the_last_process_had, "P6"),
    )
)

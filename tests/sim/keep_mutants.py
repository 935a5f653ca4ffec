"""Bugs in keeping, forgetting and copying, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core import keeping
from p2psched.core.copies import live_peers, ranked
from p2psched.core.forgotten import Forgotten
from p2psched.core.jobs import Job
from p2psched.core.retention import Retention
from p2psched.core.state import LedgerState
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Held, JobReopened, Outcome, Retry
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim_blobs import SimBlobs
from p2psched.testing.sim_keeper import SimKeeper
from tests.sim.mutants import Mutant, Planted


def _forgets_for_good() -> Planted:
    return patch.object(Forgotten, "add", lambda forgotten, job, now_ms: None)


def _voids_nothing() -> Planted:
    reopen = keeping._reopen

    def silent(s: LedgerState, job: Job, command: Retry, tasks: TaskSet) -> None:
        reopen(s, job, command, tasks)
        s.events[:] = [event for event in s.events if not isinstance(event, JobReopened)]

    return patch.object(keeping, "_reopen", silent)


def _takes_any_bytes_for_the_same() -> Planted:
    held = keeping.held

    def blind(s: LedgerState, command: Held) -> Outcome:
        job = s.jobs.get(command.job)
        known = job.blobs if job is not None else {}
        blobs = tuple(
            (index, name, known[index, name].ref.digest if (index, name) in known else digest)
            for index, name, digest in command.blobs
        )
        return held(s, msgspec.structs.replace(command, blobs=blobs))

    return patch.object(keeping, "held", blind)


def _claims_copies() -> Planted:
    def claimed(keeper: SimKeeper, blob: ResultBlob, copies: int) -> ResultBlob:
        me = keeper._peer.id
        others = [peer for peer in live_peers(keeper._state) if peer != me]
        holders = sorted([me, *ranked(blob.ref.digest, others)[: copies - 1]])
        return ResultBlob(blob.index, blob.name, blob.ref, tuple(holders))

    return patch.object(SimKeeper, "_copied", claimed)


def _keeps_without_a_sync() -> Planted:
    """As if a large result were on the disk when it was written."""
    return patch.object(SimBlobs, "_sync", lambda blobs, file: None)


def _forgets_too_early() -> Planted:
    return patch.object(Retention, "_due_ms", lambda retention, job: job.ended_ms)


MILD: Final = Faults(drop=0.05, tail=0.1, cut_every_ms=2_000, cut_ms_max=1_000)
# Owners go for good while they copy, disks lose what they have.
HARSH: Final = Faults(
    drop=0.1,
    tail=0.1,
    cut_every_ms=1_000,
    cut_ms_max=1_000,
    crash_every_ms=1_500,
    restart_ms_max=2_000,
    damage_every_ms=300,
)
DARK: Final = Faults(crash_every_ms=1_500, power_loss=1.0, restart_ms_max=200, tail=0.05)

KEEP_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=faults,
        broken=broken,
        events=4_000,
        jobs_max=40,
        keeping=True,
    )
    for name, plant, faults, broken in (
        ("the id of a forgotten job is free at once", _forgets_for_good, MILD, "P9"),
        ("a task runs again and its old result is not voided", _voids_nothing, HARSH, "P6"),
        (
            "a report on one large result is taken for another's",
            _takes_any_bytes_for_the_same,
            HARSH,
            "P6",
        ),
        ("peers count as holders that were never asked", _claims_copies, MILD, "P1"),
        ("a large result is told before it is synced", _keeps_without_a_sync, DARK, "P1"),
        ("jobs are forgotten when they end", _forgets_too_early, MILD, "P9"),
    )
)

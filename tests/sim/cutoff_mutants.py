"""Bugs in what a peer does that is cut off, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core.outbox import Outbox
from p2psched.core.raft.timing import Timing
from p2psched.core.separation import Separation
from p2psched.core.separation_effects import Recalled
from p2psched.core.spooling import Spooling
from p2psched.core.verdicts import Verdicts
from p2psched.model.commands import Completed, Grant
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted, Planting

APART: Final = Faults(cut_every_ms=2_000, cut_ms_max=10_000, cuts=("alone", "split"))
FOR_LONG: Final = Faults(cut_every_ms=3_000, cut_ms_max=30_000, cuts=("alone", "split"))
AND_KILLED: Final = Faults(
    cut_every_ms=2_000,
    cut_ms_max=10_000,
    cuts=("alone", "split"),
    crash_every_ms=2_500,
    power_loss=0.0,
)


def _says_that_it_counts() -> Planted:
    """What was superseded is told as committed."""
    on_outcome = Verdicts.on_outcome

    def hopeful(told: Verdicts, job: JobId, grant: Grant, outcome: Completed) -> None:
        on_outcome(told, job, grant, Completed(outcome.accepted | outcome.stale))

    return patch.object(Verdicts, "on_outcome", hopeful)


def _says_nothing_of_what_it_drops() -> Planted:
    revoke = Outbox.revoke

    def silent(outbox: Outbox, job: JobId, grant: Grant, tasks: TaskSet) -> TaskSet:
        revoke(outbox, job, grant, tasks)
        return EMPTY

    return patch.object(Outbox, "revoke", silent)


def _forgets_what_it_kept() -> Planted:
    """A process that starts doesn't look for results of the one before it."""
    on_event = Separation.on_event

    def forgetful(separation: Separation, event: object) -> object:
        if isinstance(event, Recalled):
            found = msgspec.structs.replace(event.recollection, results=())
            event = Recalled(event.now_ms, found)
        return on_event(separation, event)  # type: ignore[arg-type]

    return patch.object(Separation, "on_event", forgetful)


def _spools_under_a_new_id() -> Planted:
    add = Spooling.add

    def twice(spooling: Spooling, job: JobId, spec: JobSpec) -> None:
        add(spooling, job, spec)
        add(spooling, JobId(job[::-1]), spec)

    return patch.object(Spooling, "add", twice)


def _lets_later_ones_pass() -> Planted:
    """The newest of the spool is first."""
    on_led = Spooling.on_led

    def turned(spooling: Spooling, now_ms: int) -> None:
        if not spooling._in_flight:
            spooling._waiting = dict(reversed(spooling._waiting.items()))
        on_led(spooling, now_ms)

    return patch.object(Spooling, "on_led", turned)


def _mutant(name: str, broken: str, plant: Planting, faults: Faults = APART) -> Mutant:
    return Mutant(name=name, plant=plant, faults=faults, broken=broken, timing=Timing())


CUTOFF_MUTANTS: Final = (
    _mutant("what was superseded is said to count", "E4", _says_that_it_counts),
    _mutant("a result is dropped without a word", "E4", _says_nothing_of_what_it_drops),
    _mutant("results on the disk are forgotten", "E4", _forgets_what_it_kept, AND_KILLED),
    _mutant("what was spooled is submitted twice", "E4", _spools_under_a_new_id),
    _mutant("the spool is no queue", "E4", _lets_later_ones_pass, FOR_LONG),
)

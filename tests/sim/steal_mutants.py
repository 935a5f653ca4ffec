"""Bugs in stealing, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core import moving
from p2psched.core.departing import Departing, Parting
from p2psched.core.owner import Owner
from p2psched.core.raft.timing import Timing
from p2psched.core.state import LedgerState
from p2psched.core.thief import Thief
from p2psched.core.waiting import Waiting
from p2psched.model.commands import (
    Grant,
    Granted,
    Outcome,
    Placed,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.moves import Moved, Transfer
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import HASTY, Mutant, Planted

PATIENT: Final = Timing()
Aside = list[tuple[JobId, Grant, TaskSet]]


def _renews_no_grant() -> Planted:
    """The taker works under the grant of the giver."""
    transfer = moving.transfer

    def same_grant(s: LedgerState, proposer: PeerId, command: Transfer) -> Outcome:
        outcome = transfer(s, proposer, command)
        job = s.jobs.get(command.job)
        if job is None or not isinstance(outcome, Placed) or not outcome.tasks:
            return outcome
        if command.grant in job.grants:  # not all of it went
            return outcome
        held = job.grants.pop(outcome.grant)
        held.grant = command.grant
        job.grants[command.grant] = held
        for place, event in enumerate(s.events):
            if isinstance(event, Granted):
                s.events[place] = msgspec.structs.replace(event, grant=command.grant)
            elif isinstance(event, Moved):
                s.events[place] = msgspec.structs.replace(event, to=command.grant)
        return outcome

    return patch.object(moving, "transfer", same_grant)


def _gives_what_runs() -> Planted:
    set_aside = Owner.set_aside

    def greedy(owner: Owner, chosen: Iterable[tuple[int, int]]) -> Aside:
        aside = set_aside(owner, chosen)
        runs = [(r.batch.job, r.batch.grant, r.left) for r in owner._running.values() if r.left]
        return aside + runs[:1]

    return patch.object(Owner, "set_aside", greedy)


def _starts_what_it_gives() -> Planted:
    """It is not set aside: nobody has said yet that it goes."""

    def copied(waiting: Waiting, chosen: Iterable[tuple[int, int]]) -> Aside:
        entries = list(waiting)
        return [
            (entry.job, entry.grant, entry.tasks - entry.tasks.take(len(entry.tasks) - count))
            for entry, count in ((entries[place], count) for place, count in chosen)
        ]

    return patch.object(Waiting, "set_aside", copied)


def forgets_what_stays() -> Planted:
    on_outcome = Departing.on_outcome

    def forgetful(departing: Departing, request: int, outcome: Outcome) -> Parting | None:
        parting = on_outcome(departing, request, outcome)
        if isinstance(parting, Transfer):
            return msgspec.structs.replace(parting, tasks=EMPTY)
        return parting

    return patch.object(Departing, "on_outcome", forgetful)


def _does_not_hold_what_goes() -> Planted:
    return patch.object(Departing, "parts", lambda _: iter(()))


def takes_all_back() -> Planted:
    """Whatever the ledger says."""

    def greedy(departing: Departing, request: int, outcome: Outcome) -> Parting | None:
        del outcome
        return departing._proposed.pop(request, None)

    return patch.object(Departing, "on_outcome", greedy)


def _moves_what_is_lost() -> Planted:
    """From an owner that is down: it may be back, and the coordinator places anew what it had."""
    return patch.object(LedgerState, "is_live", lambda s, peer, _: peer in s.peers)


def _asks_without_pause() -> Planted:
    def impatient(thief: Thief, now_ms: int) -> None:
        thief._asked = thief._due_ms = None
        thief._not_before.clear()
        thief._again_ms = now_ms

    return patch.object(Thief, "_fail", impatient)


# Much is placed badly, and peers come and go.
BUSY: Final = Faults(
    misplace_every_ms=60,
    drain_every_ms=700,
    crash_every_ms=3_000,
    pause_every_ms=3_000,
    cut_every_ms=3_000,
    restart_ms_max=200,
    power_loss=0.0,
    drop=0.02,
    duplicate=0.1,
    tail=0.05,
)
# What is proposed takes long, and is often there twice.
SLOW: Final = Faults(
    misplace_every_ms=40,
    drain_every_ms=60,
    delay_us=5_000,
    duplicate=0.3,
    tail=0.1,
)
CALM: Final = replace(Faults(), misplace_every_ms=60)

STEAL_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=faults,
        broken=broken,
        events=6_000,
        timing=PATIENT if faults is SLOW else HASTY,
        jobs_max=60,
        keeping=False,
    )
    for name, plant, broken, faults in (
        ("grant not renewed on steal", _renews_no_grant, "P", BUSY),
        ("steal of running task", _gives_what_runs, "E5", BUSY),
        ("what an owner gives it starts all the same", _starts_what_it_gives, "E5", BUSY),
        ("what could not move is forgotten", forgets_what_stays, "L5", BUSY),
        ("what is on its way is not held", _does_not_hold_what_goes, "P5", SLOW),
        ("an owner takes back what has moved", takes_all_back, "E5", BUSY),
        ("tasks of a lost owner are moved", _moves_what_is_lost, "P6", BUSY),
        ("a thief asks without pause", _asks_without_pause, "E5", CALM),
    )
)

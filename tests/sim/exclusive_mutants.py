"""Bugs in what keeps exclusive tasks at one place at a time, planted on purpose: see `mutants`.

Where a bug is in what the ledger says, the second reading has it, too: what is wanted here is a
referee that sees two tasks run, whatever anybody believes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

from p2psched.core import exclusive, once
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.leasing import Leasing
from p2psched.core.owner import Owner, OwnerEffect
from p2psched.core.raft.timing import Timing
from p2psched.core.starting import Starting
from p2psched.core.state import LedgerState
from p2psched.model.commands import Outcome, Placed
from p2psched.model.once import Once, Started
from p2psched.testing import shadow_retries
from p2psched.testing.faults import Faults
from p2psched.testing.sim_exclusive import Watch, _Watched
from tests.sim.mutants import Mutant, Planted

# Every owner is away now and then, and hears what it had missed all at once when it is back.
AWAY: Final = Faults(
    cut_every_ms=4_000,
    cut_ms_max=9_000,
    cuts=("alone",),
    pause_every_ms=2_000,
    pause_ms_max=10_000,
    suspend_every_ms=3_000,
    stale=1.0,
    drift_ppm=500,
)


@contextmanager
def _counts_from_the_answer() -> Iterator[None]:
    """A lease begins where its owner hears of it."""
    now: dict[Starting | Leasing, int] = {}

    _begin_and_hold = Owner.begin_and_hold
    _starts, _renews = Starting.on_outcome, Leasing.on_outcome

    def begin_and_hold(self: Owner, by: Callable[[Once], int], now_ms: int) -> list[OwnerEffect]:
        now[self.starting] = now[self.leasing] = now_ms
        return _begin_and_hold(self, by, now_ms)

    def starts(self: Starting, request: int, outcome: Outcome) -> bool:
        if request in self._sent_ms:
            self._sent_ms[request] = now[self]
        return _starts(self, request, outcome)

    def renews(self: Leasing, request: int, outcome: Outcome) -> bool:
        if request in self._sent:
            job, grant, _ = self._sent[request]
            self._sent[request] = job, grant, now[self]
        return _renews(self, request, outcome)

    with (
        patch.object(Owner, "begin_and_hold", begin_and_hold),
        patch.object(Starting, "on_outcome", starts),
        patch.object(Leasing, "on_outcome", renews),
    ):
        yield


@contextmanager
def _lapses(too_early_ms: Callable[[int], int]) -> Iterator[None]:
    """In both readings. `too_early_ms`: by lease."""
    _lapse_ms, _shadows = exclusive.lapse_ms, shadow_retries.lapse_ms
    with (
        patch.object(
            exclusive,
            "lapse_ms",
            lambda job, record: _lapse_ms(job, record) - too_early_ms(job.spec.lease_ms),
        ),
        patch.object(
            shadow_retries,
            "lapse_ms",
            lambda job, grant: _shadows(job, grant) - too_early_ms(job.spec.lease_ms),
        ),
    ):
        yield


def _has_no_margin() -> Planted:
    """Where the lease is over in the ledger, all of it is over."""
    return _lapses(lambda lease_ms: lease_ms // 100 + 500)


def _waits_for_no_lease() -> Planted:
    """A lost task waits for the next owner at once."""
    return _lapses(lambda lease_ms: 2 * lease_ms)


@contextmanager
def _renews_what_is_lost() -> Iterator[None]:
    """Who was declared down has its leases renewed, and the ledger thinks nothing of it."""

    def started(s: LedgerState, job: Job, step: Started) -> Outcome:
        outcome = _started(s, job, step)
        taken = outcome.tasks if isinstance(outcome, Placed) else step.tasks
        return Placed(step.grant, taken | step.tasks)

    _started, _is_live = once._started, LedgerState.is_live
    with (
        patch.object(once, "_started", started),
        patch.object(Leasing, "propose", _proposes_always),
    ):
        yield


_propose = Leasing.propose


def _proposes_always(self: Leasing, by: Callable[[Once], int], now_ms: int) -> None:
    with patch.object(self._state, "is_live", lambda peer, incarnation: True):
        _propose(self, by, now_ms)


def _clock_stops_in_sleep() -> Planted:
    """Who watches over tasks counts by a clock that stands still while the machine sleeps."""

    def wake(self: Watch, slept_us: int) -> None:
        for watched in self._watched.values():
            watched.until_ms += slept_us // 1000
        _wake(self, slept_us)

    _wake = Watch.wake
    return patch.object(Watch, "wake", wake)


def _stands_still_with_its_peer() -> Planted:
    """Nobody ends tasks but the peer itself."""

    def kill(self: Watch, watched: _Watched) -> None:
        if getattr(self._machine, "paused", False):
            watched.is_late = False
            self._world.after(50, lambda: self._look(watched))
        else:
            _kill(self, watched)

    _kill = Watch._kill
    return patch.object(Watch, "_kill", kill)


def _forgets_the_lease() -> Planted:
    """A renewal changes nothing in the ledger; its owner goes on by it."""

    def lease(s: LedgerState, job: Job, held: HeldGrant) -> None:
        if not held.until_ms:
            _lease(s, job, held)

    _lease = exclusive.lease
    return patch.object(exclusive, "lease", lease)


EXCLUSIVE_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=AWAY,
        timing=Timing(),
        broken=broken,
        jobs_max=12,
        events=3_000,
        exclusives=12,
    )
    for name, plant, broken in (
        ("a lease counts from its answer", _counts_from_the_answer, "E9"),
        ("a lease lapses without a margin", _has_no_margin, "E9"),
        ("a lost task waits for no lease", _waits_for_no_lease, "E9"),
        ("a lost owner's lease is renewed", _renews_what_is_lost, "E9"),
        ("the watch's clock stops in sleep", _clock_stops_in_sleep, "E9"),
        ("the watch stands still with its peer", _stands_still_with_its_peer, "E9"),
        ("the ledger forgets renewals", _forgets_the_lease, "P6"),
    )
)

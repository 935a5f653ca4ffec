"""Bugs in what keeps exclusive tasks at one place at a time, planted on purpose: each with what
must happen to an owner so that somebody sees it (`test_exclusive`).

Where a bug is in what the ledger says, the second reading has it, too: what is wanted here is a
referee that sees two tasks run, whatever anybody believes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

from p2psched.core import exclusive
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.leasing import Leasing
from p2psched.core.owner import Owner, OwnerEffect
from p2psched.core.scheduler import Scheduler, SchedulerEffect, SchedulerEvent
from p2psched.core.starting import Starting
from p2psched.core.state import LedgerState
from p2psched.model.commands import Outcome
from p2psched.model.once import Gone, Once
from p2psched.testing import shadow_once, shadow_retries, sim_exclusive
from p2psched.testing.shadow import Shadow
from p2psched.testing.shadow_job import ShadowJob
from p2psched.testing.sim_exclusive import Watch, _Watched

Planted = AbstractContextManager[object]


@contextmanager
def counts_from_the_answer() -> Iterator[None]:
    """A lease begins where its owner hears of it."""
    now: dict[Starting | Leasing, int] = {}
    _step = Scheduler.step
    _starts, _renews = Starting.on_outcome, Leasing.on_outcome

    def step(self: Scheduler, event: SchedulerEvent) -> list[SchedulerEffect]:
        now[self.owner.starting] = now[self.owner.leasing] = event.now_ms
        return _step(self, event)

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
        patch.object(Scheduler, "step", step),
        patch.object(Starting, "on_outcome", starts),
        patch.object(Leasing, "on_outcome", renews),
    ):
        yield


@contextmanager
def _lapses(too_early_ms: Callable[[int], int]) -> Iterator[None]:
    """In both readings. `too_early_ms`: by lease."""
    _lapse_ms, _shadows = exclusive.lapse_ms, shadow_retries.lapse_ms

    def lapse_ms(job: Job, record: HeldGrant) -> int:
        return _lapse_ms(job, record) - too_early_ms(job.spec.lease_ms)

    def shadows(job: ShadowJob, grant: int) -> int:
        return _shadows(job, grant) - too_early_ms(job.spec.lease_ms)

    with (
        patch.object(exclusive, "lapse_ms", lapse_ms),
        patch.object(shadow_retries, "lapse_ms", shadows),
    ):
        yield


@contextmanager
def has_no_margin() -> Iterator[None]:
    """Where the lease is over in the ledger, all of it is over. The watch is as late as it may
    be."""
    with _lapses(lambda lease_ms: lease_ms // 100 + 500), late_watch():
        yield


def says_gone_too_early() -> Planted:
    """As soon as it has told them to end."""
    begin = Owner.begin_and_hold

    def begin_and_hold(self: Owner, by: Callable[[Once], int], now_ms: int) -> list[OwnerEffect]:
        for run in self._running.values():
            if run.leaves and run.left.ranges:
                batch = run.batch
                self.starting._unsure.append(Once(batch.job, Gone(batch.grant, run.left)))
                run.left = run.left - run.left
        return begin(self, by, now_ms)

    return patch.object(Owner, "begin_and_hold", begin_and_hold)


def late_watch() -> Planted:
    return patch.object(sim_exclusive, "late_ms", lambda _rng: sim_exclusive.LATE_MS_MAX)


def waits_for_no_lease() -> Planted:
    """A lost task waits for the next owner at once."""
    return _lapses(lambda lease_ms: 2 * lease_ms)


@contextmanager
def forgets_renewals() -> Iterator[None]:
    """A renewal changes nothing in the ledger; its owner goes on by it."""
    _lease, _shadows = exclusive.lease, shadow_once.lease

    def lease(s: LedgerState, job: Job, held: HeldGrant) -> None:
        if not held.until_ms:
            _lease(s, job, held)

    def shadows(s: Shadow, job: ShadowJob, grant: int) -> None:
        if grant not in job.until_ms:
            _shadows(s, job, grant)

    with patch.object(exclusive, "lease", lease), patch.object(shadow_once, "lease", shadows):
        yield


def clock_stops_in_sleep() -> Planted:
    """Who watches over tasks counts by a clock that stands still while the machine sleeps."""
    _wake = Watch.wake

    def wake(self: Watch, slept_us: int) -> None:
        for watched in self._watched.values():
            watched.until_ms += slept_us // 1000
        _wake(self, slept_us)

    return patch.object(Watch, "wake", wake)


def stands_still_with_its_peer() -> Planted:
    """Nobody ends tasks but the peer itself."""
    _kill = Watch._kill

    def kill(self: Watch, watched: _Watched) -> None:
        if getattr(self._machine, "paused", False):
            self._world.after(50, lambda: self._look(watched))
        else:
            _kill(self, watched)

    return patch.object(Watch, "_kill", kill)

"""Bugs in what follows a bad end, and in limits of time, planted on purpose: see `mutants`."""

from __future__ import annotations

import random
from typing import Final
from unittest.mock import PropertyMock, patch

import msgspec

from p2psched.core import retrying
from p2psched.core.counter import NOTHING
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.raft.timing import Timing
from p2psched.core.state import LedgerState
from p2psched.model.job import Segment
from p2psched.model.retry import RetryRule
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted

CUTS: Final = Faults(cut_every_ms=3_000, cut_ms_max=2_000, cuts=("alone",))


def _places_at_once() -> Planted:
    ready = property(lambda job: job.waiting)
    return patch.object(Job, "ready", ready)


def _counts_all_causes_together() -> Planted:
    on_end = retrying.on_end

    def together(
        s: LedgerState, job: Job, held: HeldGrant, segment: Segment, rule: RetryRule
    ) -> tuple[TaskSet, list[Segment]]:
        had = dict(job.ends)
        answer = on_end(s, job, held, segment, rule)
        for cause in job.spec.retry.rules if job.spec.retry is not None else ():
            if cause.cause is not rule.cause:
                other = had.get(cause.cause, NOTHING)
                job.ends[cause.cause] = other.plus(segment.tasks - answer[0])
        return answer

    return patch.object(retrying, "on_end", together)


def _draws_by_itself() -> Planted:
    """Each peer another delay."""
    delays = retrying.delays
    rng = random.Random(0)

    def drawn(job: Job, tasks: TaskSet, rule: RetryRule, before: int) -> list[tuple[int, TaskSet]]:
        return [(ms + rng.randrange(50), part) for ms, part in delays(job, tasks, rule, before)]

    return patch.object(retrying, "delays", drawn)


def _forgets_the_cap() -> Planted:
    delays = retrying.delays

    def uncapped(
        job: Job, tasks: TaskSet, rule: RetryRule, before: int
    ) -> list[tuple[int, TaskSet]]:
        delay = msgspec.structs.replace(rule.delay, cap_ms=rule.delay.cap_ms + 2_000)
        longer = msgspec.structs.replace(rule, delay=delay)
        return list(delays(job, tasks, longer, before))

    return patch.object(retrying, "delays", uncapped)


def _wakes_all() -> Planted:
    """Whatever is due of a job, all of it may run."""
    wake = retrying._wake
    return patch.object(retrying, "_wake", lambda job, upto_ms: wake(job, 1 << 62))


def _never_wakes_again() -> Planted:
    return patch.object(retrying, "_next_ms", lambda job: None)


def _goes_on_after_fatal() -> Planted:
    return patch.object(retrying, "settle", lambda s, job: None)


def _alerts_each_time() -> Planted:
    alert = retrying._alert

    def loud(s: LedgerState, job: Job, held: HeldGrant, tasks: TaskSet, rule: RetryRule) -> None:
        job.alerted.pop(rule.cause, None)
        alert(s, job, held, tasks, rule)

    return patch.object(retrying, "_alert", loud)


def _gives_up_what_runs() -> Planted:
    """What was owned before counts as never tried."""
    tried = PropertyMock(return_value=TaskSet())
    return patch.object(Job, "tried", tried)


RETRY_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=CUTS,
        timing=Timing(),
        broken=broken,
        jobs_max=40,
        events=3_000,
        retrying=True,
    )
    for name, plant, broken in (
        ("a delayed retry is placed at once", _places_at_once, "does not wait"),
        ("attempts are counted over all causes", _counts_all_causes_together, "P6"),
        ("each peer draws delays of its own", _draws_by_itself, "P6"),
        ("a delay is longer than its cap", _forgets_the_cap, "P6"),
        ("one due retry wakes all of its job", _wakes_all, "P6"),
        ("of many delayed retries only the first wake", _never_wakes_again, "L5"),
        ("a fatal end stops nothing", _goes_on_after_fatal, "P6"),
        ("an alert is told each time", _alerts_each_time, "P6"),
        ("a limit on the queue ends what has run", _gives_up_what_runs, "P6"),
    )
)

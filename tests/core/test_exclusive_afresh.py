"""Exclusive tasks that wait again, of a generation before: nobody runs them for a lease."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core import exclusive
from p2psched.core.jobs import Job
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import NewGeneration, PeerDown, PeerUp, Retry
from p2psched.model.job import Cause, JobSpec, JobState
from p2psched.model.once import Once, Start, Started, margin_ms
from p2psched.model.retry import RetryPolicy, RetryRule, Severity, TimeLimits
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, Q, info, spec

ALL, FIRST, REST = TaskSet.of(0, 4), TaskSet.of(0, 1), TaskSet.of(1, 4)
LEASE_MS = 10_000
LAPSE_MS = LEASE_MS + margin_ms(LEASE_MS)
QUEUE_MS = LEASE_MS // 2
FATAL = RetryPolicy((RetryRule(Cause.EXIT, 0, severity=Severity.FATAL),))


def wanted(*, times: TimeLimits | None = None, retry: RetryPolicy | None = None) -> JobSpec:
    return msgspec.structs.replace(
        spec(4), start=Start.EXCLUSIVE, lease_ms=LEASE_MS, times=times, retry=retry
    )


def go_on(ledger: Ledger) -> None:
    ledger.do(NewGeneration(2, Q))
    for peer in (P, Q):
        ledger.do(PeerUp(msgspec.structs.replace(info(peer), incarnation=9)))


def given_up(ledger: Ledger) -> Job:
    """The first task's owner ran it in the generation before; the limit for the queue has passed
    for the others, which that generation may have begun after the copy was made."""
    ledger.wait(2 * LAPSE_MS)
    job = ledger.submit(wanted(times=TimeLimits(queue_ms=QUEUE_MS)))
    ledger.place(job, tasks=FIRST)
    go_on(ledger)
    ledger.wait(QUEUE_MS)
    assert (job.cancelled, job.waiting, job.ended) == (REST, FIRST, False)
    return job


def test_what_was_given_up_before_its_job_has_ended_waits_for_leases_of_before() -> None:
    ledger = Ledger()
    job = given_up(ledger)
    ledger.do(Retry(job.id, wanted(times=TimeLimits(queue_ms=QUEUE_MS))))
    ledger.wait(LAPSE_MS - QUEUE_MS - 1)
    assert (job.placeable, ledger.place(job).tasks) == (EMPTY, EMPTY)
    ledger.wait(1)
    assert ledger.machine.jobs[job.id].placeable == ALL


def test_what_was_given_up_unowned_in_this_generation_waits_for_nobody() -> None:
    ledger = Ledger()
    ledger.wait(2 * LAPSE_MS)
    limits = wanted(times=TimeLimits(queue_ms=QUEUE_MS))
    job = ledger.submit(limits)
    placed = ledger.place(job, tasks=FIRST)
    ledger.do(Once(job.id, Started(placed.grant, FIRST, P, 1)))
    ledger.do(PeerDown(P, 1, "not heard"))
    ledger.wait(QUEUE_MS)
    assert (job.cancelled, job.doubtful, job.ended) == (REST, FIRST, False)
    ledger.do(Retry(job.id, limits))
    assert job.placeable == REST
    assert job.doubtful == FIRST, "that one may run"


def test_what_was_stopped_counts_from_that_though_its_job_runs_again() -> None:
    ledger = Ledger()
    stops = wanted(retry=FATAL)
    job = ledger.submit(stops)
    placed = ledger.place(job, tasks=REST)
    ledger.do(Once(job.id, Started(placed.grant, REST, P, 1)))
    ledger.run(job, Cause.EXIT, Q)
    assert job.state is JobState.FAILED
    ledger.wait(1_000)
    ledger.do(Retry(job.id, stops, FIRST))
    ledger.place(job, Q, FIRST)
    assert not job.ended
    ledger.wait(1_000)
    ledger.do(Retry(job.id, stops))
    ledger.wait(LAPSE_MS - 2_001)
    assert job.placeable == EMPTY
    ledger.wait(1)
    assert job.placeable == REST


def test_what_ended_before_the_copy_may_have_been_run_again_since() -> None:
    ledger = Ledger()
    job = ledger.submit(wanted())
    ledger.run(job, Cause.EXIT)
    assert job.state is JobState.FAILED
    ledger.wait(2 * LAPSE_MS)
    go_on(ledger)
    ledger.wait(1_000)
    ledger.do(Retry(job.id, wanted()))
    ledger.wait(LAPSE_MS - 1_001)
    assert job.placeable == EMPTY
    ledger.wait(1)
    assert job.placeable == ALL


def test_a_job_that_was_submitted_after_the_copy_may_run_where_that_is_known() -> None:
    ledger = Ledger()
    go_on(ledger)
    restored = Ledger()
    restore_machine(restored.machine, encode_machine(ledger.machine))
    restored.now_ms = ledger.now_ms
    for each in (ledger, restored):
        job = each.submit(wanted())
        each.wait(LAPSE_MS - 1)
        assert job.placeable == EMPTY
        each.wait(1)
        assert job.placeable == ALL
        assert each.submit(wanted(), "later").placeable == ALL


@pytest.mark.parametrize("level", [exclusive.AFRESH_LEVEL - 1, KNOWN_LEVEL])
def test_an_older_cluster_does_as_its_older_versions_do(level: int) -> None:
    ledger = Ledger(level=level)
    job = given_up(ledger)
    ledger.do(Retry(job.id, wanted(times=TimeLimits(queue_ms=QUEUE_MS))))
    assert job.placeable == (EMPTY if level == KNOWN_LEVEL else REST)

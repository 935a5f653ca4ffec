"""What follows a bad end: each cause by its own row, delays, alerts, the end of a job."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import retrying
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks, items
from p2psched.model.commands import (
    PeerDown,
    Recorded,
    Rejected,
    Retry,
    Revoked,
    SubmitJob,
)
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState
from p2psched.model.retry import (
    BACKOFF,
    CAUSES,
    Delay,
    RetryPolicy,
    RetryRule,
    Severity,
    TimeLimits,
    usual_rule,
)
from p2psched.model.retry_events import Delayed
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, Q, R, spec

ONE = TaskSet.of(0, 1)


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_as_many_attempts_as_its_own_rule_says(cause: Cause) -> None:
    ledger = Ledger()
    rules = [RetryRule(c, most) for most, c in enumerate(CAUSES)]
    job = ledger.submit(spec(1, *rules, retries=9))
    for _ in range(CAUSES.index(cause)):
        assert ledger.run(job, cause) == ONE
        assert job.waiting == ONE
    ledger.run(job, cause)
    assert job.failed == ONE
    assert job.state is JobState.FAILED


def test_one_cause_costs_nothing_of_what_another_has() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(1, *(RetryRule(cause, 1) for cause in CAUSES), retries=2))
    for cause in CAUSES:
        ledger.run(job, cause)
        assert job.waiting == ONE
    assert job.attempts(ONE) == [(1 + len(CAUSES), ONE)]
    ledger.run(job, Cause.OK)
    assert job.state is JobState.SUCCEEDED
    assert job.bad_ends == dict.fromkeys(CAUSES, 1)


def test_a_lost_peer_costs_no_attempt_and_no_delay() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(1, RetryRule(Cause.EXIT, 1, BACKOFF)))
    ledger.place(job, Q)
    ledger.do(PeerDown(Q, 1, "gone"))
    assert ledger.run(job, Cause.EXIT) == ONE
    assert job.failed == EMPTY
    assert job.attempts(ONE) == [(3, ONE)]


def test_a_cause_without_a_rule_is_retried_as_ever() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(1, RetryRule(Cause.TIMEOUT, 0), retries=1))
    ledger.run(job, Cause.EXIT)
    assert ledger.run(job, Cause.EXIT) == ONE
    assert job.failed == ONE


# --- delays ---------------------------------------------------------------------------------------


def delays_of(ledger: Ledger) -> list[tuple[int, int]]:
    """Task, and until when it waits, in the order in which they were told."""
    told = [e for e in ledger.events if isinstance(e, Delayed)]
    return [(index, event.until_ms) for event in told for index in event.tasks]


def test_fixed_delays_are_exact_and_nothing_is_placed_before() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(2, RetryRule(Cause.EXIT, 5, Delay(5_000, 5_000, fixed=True))))
    for _ in range(5):
        ledger.run(job, Cause.EXIT)
        failed_ms = ledger.now_ms
        assert delays_of(ledger)[-2:] == [(0, failed_ms + 5_000), (1, failed_ms + 5_000)]
        ledger.wait(4_999)
        assert ledger.place(job).tasks == EMPTY
        assert job.id not in ledger.machine.unplaced
        ledger.wait(1)
        assert job.id in ledger.machine.unplaced
        ledger.wait(17)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 5_000),
    st.integers(0, 60_000),
    st.integers(1, 300),
    st.text("0123456789abcdef", min_size=32, max_size=32),
)
def test_drawn_delays_double_up_to_their_cap_and_are_the_same_again(
    first_ms: int, more_ms: int, count: int, name: str
) -> None:
    rule = RetryRule(Cause.EXIT, 4, Delay(first_ms, first_ms + more_ms))
    runs: list[list[tuple[int, int]]] = []
    for _ in range(2):
        ledger = Ledger()
        job = ledger.submit(spec(count, rule), name)
        for before in range(4):
            told = len(delays_of(ledger))
            assert ledger.run(job, Cause.EXIT) == job.spec.tasks
            bound_ms = min(first_ms << before, first_ms + more_ms)
            assert all(0 < due - ledger.now_ms <= bound_ms for _, due in delays_of(ledger)[told:])
            ledger.wait(bound_ms)
            assert not job.delayed
            assert not job.later
        runs.append(delays_of(ledger))
    assert runs[0] == runs[1]


def test_tasks_of_one_moment_come_back_spread_over_the_whole_time() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(4_000, RetryRule(Cause.EXIT, 1, Delay(10_000, 10_000))))
    ledger.run(job, Cause.EXIT)
    tenths = [0] * 10
    for _, due in delays_of(ledger):
        tenths[min(9, (due - ledger.now_ms) // 1_000)] += 1
    assert all(300 < tenth < 500 for tenth in tenths)


def size_of(job: Job) -> int:
    """Bytes of what is kept of its delays, more or less."""
    ranges = sum(len(tasks.ranges) for tasks in (job.delayed, *job.later.values()))
    return sys.getsizeof(job.later) + 200 * len(job.later) + 120 * ranges


def test_a_million_tasks_that_fail_at_once_are_a_few_thousand_sets() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(1_000_000, usual_rule(Cause.EXIT, 3)))
    ledger.run(job, Cause.EXIT)
    assert len(job.delayed) + len(job.ready) == 1_000_000
    assert len(job.later) <= retrying.STEPS + 1
    assert sum(len(tasks.ranges) for tasks in job.later.values()) <= retrying.JITTERS_MAX + 1
    assert size_of(job) < 1_500_000


def test_what_waits_is_the_same_after_a_snapshot() -> None:
    ledger = Ledger()
    times = TimeLimits(queue_ms=90_000, total_ms=100_000)
    job = ledger.submit(spec(50, RetryRule(Cause.EXIT, 1, Delay(100, 20_000)), times=times))
    ledger.run(job, Cause.EXIT)
    copy = Machine()
    restore_machine(copy, encode_machine(ledger.machine))
    assert encode_machine(copy) == encode_machine(ledger.machine)
    assert copy.job_dues.next_ms() == ledger.machine.job_dues.next_ms()
    assert copy.dump() == ledger.machine.dump()


# --- elsewhere, demoted ---------------------------------------------------------------------------


def item_message(ledger: Ledger) -> str:
    event = [e for e in ledger.events if isinstance(e, Recorded)][-1]
    header, *_ = items.unpack(chunks.unpack(event.segment.data)[-1])
    return str(header["message"])


def test_a_limit_met_on_two_peers_says_that_the_task_is_too_slow_everywhere() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(1, usual_rule(Cause.TIMEOUT, 1)))
    ledger.run(job, Cause.TIMEOUT, P)
    assert job.avoids == {P: ONE}
    ledger.run(job, Cause.TIMEOUT, Q)
    assert job.failed == ONE
    assert item_message(ledger) == "too slow everywhere: it met its limit on p, q (over)"


def test_a_limit_met_on_one_peer_blames_nobody_else() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(3, usual_rule(Cause.TIMEOUT, 1)))
    ledger.run(job, Cause.TIMEOUT, P)
    ledger.run(job, Cause.TIMEOUT, P)
    assert job.failed == job.spec.tasks
    assert item_message(ledger) == "over"


# --- severities -----------------------------------------------------------------------------------


def rule(severity: Severity, most: int = 1) -> RetryRule:
    return RetryRule(Cause.EXIT, most, severity=severity)


def test_info_alerts_nobody() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(3, rule(Severity.INFO)))
    ledger.run(job, Cause.EXIT)
    ledger.run(job, Cause.EXIT)
    assert job.state is JobState.FAILED
    assert ledger.alerts == []


def test_a_warning_is_told_once_at_the_first_end() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(3, rule(Severity.WARN, 2)))
    for _ in range(3):
        ledger.run(job, Cause.EXIT)
        assert ledger.alerts == [("exit", "warn")]


def test_an_error_is_told_once_a_task_has_no_attempt_left() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(3, rule(Severity.ERROR)))
    ledger.run(job, Cause.EXIT)
    assert ledger.alerts == []
    ledger.run(job, Cause.EXIT)
    assert ledger.alerts == [("exit", "error")]


def test_a_fatal_end_stops_the_job_and_is_told_once() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(9, rule(Severity.FATAL, 5)))
    elsewhere = ledger.place(job, Q, TaskSet.of(6, 8))
    here = ledger.place(job, P, TaskSet.of(0, 3))
    ledger.end(job, here, Cause.EXIT)
    assert job.state is JobState.FAILED
    assert job.failed == TaskSet.of(0, 3)
    assert job.cancelled == TaskSet.of(3, 9)
    assert ledger.alerts == [("exit", "fatal")]
    revoked = [e for e in ledger.events if isinstance(e, Revoked)]
    assert [(e.peer, e.tasks) for e in revoked] == [(Q, elsewhere.tasks)]
    assert "fatal" in job.stopped


def test_a_job_that_was_stopped_can_be_run_again() -> None:
    ledger = Ledger()
    wanted = spec(4, rule(Severity.FATAL))
    job = ledger.submit(wanted)
    ledger.end(job, ledger.place(job, P, ONE), Cause.EXIT)
    ledger.do(Retry(job.id, wanted))
    assert job.waiting == wanted.tasks
    ledger.run(job, Cause.OK)
    assert job.succeeded == wanted.tasks
    assert job.ended


def test_who_runs_a_part_of_it_again_has_not_run_the_rest() -> None:
    ledger = Ledger()
    wanted = spec(4, rule(Severity.FATAL))
    job = ledger.submit(wanted)
    ledger.end(job, ledger.place(job, P, ONE), Cause.EXIT)
    ledger.do(Retry(job.id, wanted, TaskSet.of(0, 2)))
    ledger.run(job, Cause.OK)
    assert (job.state, job.cancelled) == (JobState.FAILED, TaskSet.of(2, 4))
    ledger.do(Retry(job.id, wanted))
    ledger.run(job, Cause.OK)
    assert (job.state, job.succeeded) == (JobState.SUCCEEDED, wanted.tasks)


# --- limits of time -------------------------------------------------------------------------------


def test_what_no_peer_has_taken_in_time_is_given_up_and_the_rest_goes_on() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(4, times=TimeLimits(queue_ms=3_000)))
    first = ledger.place(job, P, ONE)
    ledger.wait(2_999)
    assert job.cancelled == EMPTY
    ledger.wait(1)
    assert job.cancelled == TaskSet.of(1, 4)
    assert job.state is JobState.RUNNING
    ledger.end(job, first, Cause.OK)
    assert job.ended


def test_what_was_taken_once_is_not_given_up_when_its_peer_is_lost() -> None:
    ledger = Ledger()
    job = ledger.submit(spec(1, times=TimeLimits(queue_ms=3_000)))
    ledger.place(job, Q)
    ledger.do(PeerDown(Q, 1, "gone"))
    ledger.wait(5_000)
    assert ledger.run(job, Cause.OK, R) == ONE
    assert job.state is JobState.SUCCEEDED


def test_a_job_ends_at_its_own_limit_whatever_runs_or_waits() -> None:
    ledger = Ledger()
    rules = RetryRule(Cause.EXIT, 9, Delay(60_000, 60_000, fixed=True))
    job = ledger.submit(spec(9, rules, times=TimeLimits(total_ms=10_000)))
    ledger.end(job, ledger.place(job, P, TaskSet.of(0, 2)), Cause.OK)
    ledger.end(job, ledger.place(job, P, TaskSet.of(2, 4)), Cause.EXIT)
    runs = ledger.place(job, Q, TaskSet.of(4, 6))
    ledger.wait(10_000)
    assert job.state is JobState.FAILED
    assert job.succeeded == TaskSet.of(0, 2)
    assert job.cancelled == TaskSet.of(2, 9)
    revoked = [e for e in ledger.events if isinstance(e, Revoked)]
    assert [(e.tasks, e.cause) for e in revoked] == [(runs.tasks, Cause.TIMEOUT)]
    assert ledger.machine.job_dues.next_ms() is None


# --- who may ask ----------------------------------------------------------------------------------


def test_rules_and_limits_are_refused_until_all_peers_know_them() -> None:
    ledger = Ledger(level=4)
    for wanted in (spec(1, rule(Severity.INFO)), spec(1, times=TimeLimits(total_ms=5))):
        outcome = ledger.do(SubmitJob(JobId("k"), wanted))
        assert isinstance(outcome, Rejected)
        assert "feature level 5" in outcome.message
    assert ledger.machine.jobs == {}


def test_a_policy_has_one_rule_a_cause_and_none_for_what_costs_nothing() -> None:
    with pytest.raises(ValueError, match="two rules"):
        RetryPolicy((RetryRule(Cause.EXIT, 1), RetryRule(Cause.EXIT, 2)))
    for cause in (Cause.PEER_LOST, Cause.CANCELLED, Cause.TOO_LARGE, Cause.OK):
        with pytest.raises(ValueError, match="no rule"):
            RetryRule(cause, 1)

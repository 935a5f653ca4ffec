"""Exclusive tasks: what the ledger makes of leases, and of owners that are lost."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.jobs import Job
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks, items
from p2psched.model.commands import (
    Complete,
    Completed,
    GiveBack,
    KeptGrant,
    NewGeneration,
    PeerDown,
    PeerUp,
    Placed,
    Rejected,
    Retried,
    Retry,
    Revoked,
    SubmitJob,
)
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.job_head import digest_of
from p2psched.model.once import Decide, Gone, Once, Start, Started, Unsure, Verdict, margin_ms
from p2psched.model.retry import LAPSES_MAX, RetryPolicy, RetryRule, Severity, TimeLimits
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, Q, info, spec

ALL = TaskSet.of(0, 4)
FIRST, REST = TaskSet.of(0, 1), TaskSet.of(1, 4)
LEASE_MS = 10_000
LAPSE_MS = LEASE_MS + margin_ms(LEASE_MS)


class Case:
    """Four tasks that P was granted; the first may have begun, now."""

    def __init__(self, *rules: RetryRule, level: int = 6) -> None:
        self.ledger = Ledger(level=level)
        self.wanted = msgspec.structs.replace(
            spec(4),
            start=Start.EXCLUSIVE,
            lease_ms=LEASE_MS,
            retry=RetryPolicy(rules) if rules else None,
        )
        self.job: Job = self.ledger.submit(self.wanted)
        self.grant = self.ledger.place(self.job).grant
        self.begin(FIRST)

    def begin(self, tasks: TaskSet, incarnation: int = 1) -> TaskSet:
        outcome = self.ledger.do(Once(self.job.id, Started(self.grant, tasks, P, incarnation)))
        assert isinstance(outcome, Placed)
        return outcome.tasks

    def lose(self) -> None:
        self.ledger.do(PeerDown(P, 1, "not heard"))

    def come_up(self, kept: TaskSet = EMPTY, *, continues: int = 0) -> None:
        keeps = (KeptGrant(self.job.id, self.grant, kept),) if kept else ()
        again = msgspec.structs.replace(info(P), incarnation=2)
        self.ledger.do(PeerUp(again, keeps, continues))

    def end(self, tasks: TaskSet) -> Completed:
        data = chunks.pack([items.pack({"exit": 0})] * len(tasks))
        segment = Segment(tasks.first, tasks.first + len(tasks), Cause.OK, data)
        outcome = self.ledger.do(Complete(self.job.id, self.grant, (segment,)))
        assert isinstance(outcome, Completed)
        return outcome


def test_a_lost_task_waits_again_where_its_lease_and_the_margin_are_over() -> None:
    case = Case()
    case.lose()
    case.ledger.wait(LAPSE_MS - 1)
    assert (case.job.doubtful, case.job.placeable) == (FIRST, REST)
    case.ledger.wait(1)
    assert (case.job.doubtful, case.job.waiting) == (EMPTY, FIRST)
    assert Revoked(case.job.id, case.grant, P, FIRST, Cause.LEASE_LOST) in case.ledger.events
    (retried,) = [each for each in case.ledger.events if isinstance(each, Retried)]
    assert retried.segment.cause is Cause.LEASE_LOST
    assert (case.job.attempts_lost, case.job.attempts_failed) == (1, 0)
    assert case.job.attempts(FIRST) == [(2, FIRST)]
    assert case.job.retried == EMPTY, "it is no retry that has to stand back"


def test_each_word_of_its_owner_makes_the_lease_longer() -> None:
    case = Case()
    case.ledger.wait(6_000)
    assert case.begin(FIRST) == FIRST
    case.lose()
    case.ledger.wait(LAPSE_MS - 1)
    assert case.job.doubtful == FIRST
    case.ledger.wait(1)
    assert case.job.waiting == FIRST


def test_who_is_lost_gets_no_more_time() -> None:
    case = Case()
    case.lose()
    case.ledger.wait(6_000)
    assert case.begin(FIRST) == EMPTY
    case.ledger.wait(LAPSE_MS - 6_000)
    assert case.job.waiting == FIRST


def test_a_result_counts_until_the_lease_has_lapsed_and_not_after() -> None:
    case = Case()
    case.lose()
    case.ledger.wait(LAPSE_MS - 1)
    assert case.end(FIRST).accepted == FIRST
    late = Case()
    late.lose()
    late.ledger.wait(LAPSE_MS)
    assert late.end(FIRST).stale == FIRST
    assert late.job.waiting == FIRST


def test_who_was_away_for_less_than_a_lease_goes_on() -> None:
    case = Case()
    case.lose()
    case.ledger.wait(3_000)
    case.come_up(ALL, continues=1)
    assert case.begin(FIRST, incarnation=2) == FIRST
    case.ledger.wait(LAPSE_MS - 3_000)
    assert (case.job.doubtful, case.job.owned_count) == (EMPTY, 4)


def test_a_new_process_of_the_peer_waits_for_the_lease_of_the_one_before() -> None:
    case = Case()
    case.come_up()
    assert (case.job.doubtful, case.job.waiting) == (FIRST, REST)
    case.ledger.wait(LAPSE_MS)
    assert case.job.waiting == ALL


def test_what_its_owner_knows_no_more_does_not_come_back_by_what_it_said_before() -> None:
    case = Case()
    case.lose()
    case.ledger.do(Once(case.job.id, Unsure(case.grant, FIRST)))
    case.come_up(ALL, continues=1)
    assert (case.job.doubtful, case.job.owned_count) == (FIRST, 3)
    case.ledger.wait(LAPSE_MS)
    assert FIRST - case.job.waiting == EMPTY


def test_what_its_owner_has_seen_end_waits_for_no_lease_and_costs_no_attempt() -> None:
    case = Case(RetryRule(Cause.LEASE_LOST, 0), level=7)
    gone = Once(case.job.id, Gone(case.grant, ALL))
    case.ledger.do(gone)
    assert (case.job.placeable, case.job.owned_count) == (FIRST, 3), "the others have not begun"
    assert case.job.attempts(FIRST) == [(2, FIRST)]
    case.ledger.do(gone)
    assert case.job.placeable == FIRST
    assert case.begin(FIRST) == EMPTY, "a word of before"
    case.ledger.wait(LAPSE_MS)
    assert (case.job.failed, case.job.bad_ends) == (EMPTY, {})


def test_a_word_that_it_has_ended_counts_also_after_its_peer_was_lost() -> None:
    case = Case(level=7)
    case.lose()
    case.ledger.do(Once(case.job.id, Gone(case.grant, FIRST)))
    assert (case.job.doubtful, FIRST - case.job.placeable) == (EMPTY, EMPTY)
    older = Case(level=6)
    older.lose()
    refused = older.ledger.do(Once(older.job.id, Gone(older.grant, FIRST)))
    assert isinstance(refused, Rejected)
    assert older.job.doubtful == FIRST


def test_who_gives_back_has_not_begun() -> None:
    case = Case()
    case.lose()
    case.ledger.do(GiveBack(case.job.id, case.grant, FIRST))
    assert (case.job.doubtful, FIRST - case.job.waiting) == (EMPTY, EMPTY)


def test_nobody_decides_but_time() -> None:
    case = Case()
    case.lose()
    step = Decide(FIRST, Verdict.RUN_AGAIN, "ann", "impatient")
    refused = case.ledger.do(Once(case.job.id, step))
    assert isinstance(refused, Rejected)
    assert "time decides" in refused.message
    assert case.job.doubtful == FIRST


def test_a_task_fails_once_it_has_lost_more_leases_than_its_rule_allows() -> None:
    case = Case(RetryRule(Cause.LEASE_LOST, 0))
    case.lose()
    case.ledger.wait(LAPSE_MS)
    assert (case.job.failed, case.job.bad_ends) == (FIRST, {Cause.LEASE_LOST: 1})


def test_a_fatal_rule_stops_the_job() -> None:
    case = Case(RetryRule(Cause.LEASE_LOST, 0, severity=Severity.FATAL))
    case.lose()
    case.ledger.wait(LAPSE_MS)
    assert case.job.state is JobState.FAILED


def test_without_a_rule_there_is_a_bound() -> None:
    ledger = Ledger()
    wanted = msgspec.structs.replace(spec(1), start=Start.EXCLUSIVE, lease_ms=3_000)
    job = ledger.submit(wanted)
    for incarnation in range(1, LAPSES_MAX + 2):
        assert not job.ended
        placed = ledger.place(job, Q, FIRST) if incarnation == 1 else ledger.place(job, P)
        owner = Q if incarnation == 1 else P
        ledger.do(Once(job.id, Started(placed.grant, FIRST, owner, 1)))
        ledger.do(Once(job.id, Unsure(placed.grant, FIRST)))
        ledger.wait(3_000 + margin_ms(3_000))
    assert job.state is JobState.FAILED


def test_a_ledger_that_goes_on_from_a_copy_grants_nothing_for_a_lease() -> None:
    case = Case()
    waiting = msgspec.structs.replace(case.wanted, name="later")
    other = case.ledger.submit(waiting, "k")
    case.ledger.do(NewGeneration(2, Q))
    assert (case.job.placeable, other.placeable) == (EMPTY, EMPTY)
    case.ledger.wait(LAPSE_MS - 1)
    assert (case.job.placeable, other.placeable) == (EMPTY, EMPTY)
    case.ledger.wait(1)
    assert (case.job.placeable, other.placeable) == (ALL, ALL)


def test_what_was_stopped_while_it_ran_waits_for_its_lease_if_it_is_to_run_again() -> None:
    case = Case(RetryRule(Cause.EXIT, 0, severity=Severity.FATAL))
    case.begin(TaskSet.of(0, 2))
    data = chunks.pack([items.pack({"exit": 1})])
    case.ledger.do(Complete(case.job.id, case.grant, (Segment(1, 2, Cause.EXIT, data),)))
    assert case.job.state is JobState.FAILED
    case.ledger.wait(1_000)
    case.ledger.do(Retry(case.job.id, case.wanted))
    assert case.job.placeable == TaskSet.of(1, 2), "its end was seen"
    case.ledger.wait(LAPSE_MS - 1_001)
    assert case.job.placeable == TaskSet.of(1, 2)
    case.ledger.wait(1)
    assert case.job.placeable == ALL


def test_a_snapshot_knows_when_leases_are_over() -> None:
    case = Case()
    case.lose()
    data = encode_machine(case.ledger.machine)
    other = Ledger()
    restore_machine(other.machine, data)
    assert encode_machine(other.machine) == data
    other.now_ms = case.ledger.now_ms
    other.wait(LAPSE_MS)
    assert other.machine.jobs[case.job.id].waiting == FIRST


def test_an_older_cluster_refuses_such_a_job() -> None:
    ledger = Ledger(level=5)
    wanted = msgspec.structs.replace(spec(1), start=Start.EXCLUSIVE, lease_ms=LEASE_MS)
    refused = ledger.do(SubmitJob(JobId("j"), wanted))
    assert isinstance(refused, Rejected)
    assert "level 6" in refused.message


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lease_ms": 0}, "a lease is 3 s to 24 h"),
        ({"lease_ms": 2_999}, "a lease is 3 s to 24 h"),
        ({"hold": Hold("db")}, "holds no lock"),
        ({"start": Start.ONCE}, "are for `start exclusive`"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], why: str) -> None:
    good = msgspec.structs.replace(spec(1), start=Start.EXCLUSIVE, lease_ms=LEASE_MS)
    with pytest.raises(ValueError, match=why):
        msgspec.structs.replace(good, **changes)


def test_jobs_without_a_lease_have_the_digest_that_they_had_before_there_were_any() -> None:
    old = msgspec.structs.replace(spec(1, RetryRule(Cause.EXIT, 1)), start=Start.ONCE)
    assert digest_of(old).hex() == OLD
    assert digest_of(msgspec.structs.replace(spec(1), start=Start.EXCLUSIVE, lease_ms=3_000)) != (
        digest_of(msgspec.structs.replace(spec(1), start=Start.EXCLUSIVE, lease_ms=4_000))
    )


OLD = "880b2c5e102843abfb6aeaf5977dbbe4"


def test_what_waits_for_a_lease_of_before_may_be_given_up_by_the_limit_for_the_queue() -> None:
    case = Case()
    times = TimeLimits(queue_ms=LEASE_MS // 2)
    other = case.ledger.submit(msgspec.structs.replace(case.wanted, times=times), "k")
    case.ledger.place(other, tasks=FIRST)
    case.ledger.do(NewGeneration(2, Q))
    case.ledger.wait(LEASE_MS // 2)
    assert (other.cancelled, other.waiting, other.delayed) == (REST, FIRST, FIRST)

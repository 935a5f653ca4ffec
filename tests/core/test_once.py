"""Tasks that must not start twice: what the ledger makes of their owners' loss, and of persons."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.jobs import Job
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks, items
from p2psched.model.commands import (
    Cancel,
    Complete,
    Completed,
    GiveBack,
    KeptGrant,
    NewGeneration,
    PeerDown,
    PeerUp,
    Placed,
    Recorded,
    Rejected,
)
from p2psched.model.hold import Hold
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.moves import Transfer
from p2psched.model.once import Decide, Decided, Doubted, Once, Start, Started, Unsure, Verdict
from p2psched.model.retry import RetryRule
from p2psched.model.stalls import Fault, Stall
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, Q, info, spec

ALL = TaskSet.of(0, 4)
FIRST, REST = TaskSet.of(0, 1), TaskSet.of(1, 4)
HIS = items.pack({"exit": 0})


class Case:
    """Four tasks that P was granted; the first may have begun."""

    def __init__(self, *rules: RetryRule, retries: int = 0) -> None:
        self.ledger = Ledger()
        wanted = msgspec.structs.replace(spec(4, *rules, retries=retries), start=Start.ONCE)
        self.job: Job = self.ledger.submit(wanted)
        self.grant = self.ledger.place(self.job).grant
        self.begin(FIRST)

    def begin(self, tasks: TaskSet, incarnation: int = 1) -> TaskSet:
        step = Started(self.grant, tasks, P, incarnation)
        outcome = self.ledger.do(Once(self.job.id, step))
        assert isinstance(outcome, Placed)
        return outcome.tasks

    def lose(self) -> None:
        self.ledger.do(PeerDown(P, 1, "not heard"))

    def come_up(self, kept: TaskSet = EMPTY, *, continues: int = 0) -> None:
        keeps = (KeptGrant(self.job.id, self.grant, kept),) if kept else ()
        again = msgspec.structs.replace(info(P), incarnation=2)
        self.ledger.do(PeerUp(again, keeps, continues))

    def end(self, tasks: TaskSet, cause: Cause = Cause.OK) -> Completed:
        segments = tuple(
            Segment(start, stop, cause, chunks.pack([HIS] * (stop - start)))
            for start, stop in tasks.ranges
        )
        outcome = self.ledger.do(Complete(self.job.id, self.grant, segments))
        assert isinstance(outcome, Completed)
        return outcome

    def decide(self, tasks: TaskSet, verdict: Verdict, data: bytes = b"") -> bool:
        """False if it was refused."""
        step = Decide(tasks, verdict, "ann@desk", "looked", data)
        return not isinstance(self.ledger.do(Once(self.job.id, step)), Rejected)


def test_what_may_have_begun_is_unknown_and_nobody_else_is_granted_it() -> None:
    case = Case()
    case.lose()
    assert (case.job.doubtful, case.job.placeable) == (FIRST, REST)
    assert case.ledger.place(case.job, Q).tasks == REST
    assert Doubted(case.job.id, case.grant, P, FIRST) in case.ledger.events


def test_a_job_with_unknown_tasks_does_not_end() -> None:
    case = Case()
    case.lose()
    case.ledger.end(case.job, case.ledger.place(case.job, Q), Cause.OK)
    assert case.job.state is JobState.RUNNING
    assert case.job.doubtful == FIRST


def test_a_new_process_of_the_peer_leaves_the_same_unknown() -> None:
    case = Case()
    case.come_up()
    assert (case.job.doubtful, case.job.waiting) == (FIRST, REST)


def test_who_was_only_cut_off_goes_on() -> None:
    case = Case()
    case.lose()
    case.come_up(ALL, continues=1)
    assert (case.job.doubtful, case.job.owned_count) == (EMPTY, 4)
    assert case.end(FIRST).accepted == FIRST


def test_a_late_result_counts_while_nobody_has_decided() -> None:
    case = Case()
    case.lose()
    assert case.end(FIRST).accepted == FIRST
    assert (case.job.doubtful, case.job.succeeded) == (EMPTY, FIRST)


def test_a_late_result_of_a_peer_that_is_back_without_it_counts_too() -> None:
    case = Case()
    case.come_up()
    assert case.end(FIRST).accepted == FIRST


def test_after_the_decision_a_late_result_is_refused() -> None:
    case = Case()
    case.lose()
    assert case.decide(FIRST, Verdict.RUN_AGAIN)
    assert case.end(FIRST).stale == FIRST
    assert case.job.waiting == FIRST


def test_a_late_bad_end_is_retried_only_as_the_job_says() -> None:
    case = Case()
    case.lose()
    case.end(FIRST, Cause.EXIT)
    assert case.job.failed == FIRST
    asks = Case(RetryRule(Cause.EXIT, 1))
    asks.lose()
    asks.end(FIRST, Cause.EXIT)
    assert asks.job.waiting == FIRST


def test_a_full_disk_is_no_reason_to_start_again() -> None:
    case = Case()
    case.end(FIRST, Cause.NO_SPACE)
    assert case.job.failed == FIRST


@pytest.mark.parametrize("incarnation", [0, 2])
def test_only_the_live_owner_may_say_that_it_starts(incarnation: int) -> None:
    assert Case().begin(REST, incarnation) == EMPTY


def test_a_peer_that_is_down_starts_nothing() -> None:
    case = Case()
    case.lose()
    assert case.begin(REST) == EMPTY
    assert case.job.doubtful == FIRST


def test_who_does_not_know_the_end_says_so() -> None:
    case = Case()
    case.ledger.do(Once(case.job.id, Unsure(case.grant, ALL)))
    assert case.job.doubtful == FIRST
    assert case.job.owned_count == 3


def test_what_its_owner_knows_no_more_no_older_word_of_it_brings_back() -> None:
    case = Case()
    case.ledger.do(Once(case.job.id, Unsure(case.grant, FIRST)))
    case.come_up(ALL, continues=1)
    assert (case.job.doubtful, case.job.owned_count) == (FIRST, 3)
    assert case.decide(FIRST, Verdict.RUN_AGAIN)
    assert case.job.waiting == FIRST


def test_what_is_begun_anew_after_that_is_its_owners_again_by_a_word() -> None:
    case = Case()
    case.ledger.do(Once(case.job.id, Unsure(case.grant, FIRST)))
    case.begin(REST)
    case.lose()
    case.come_up(ALL, continues=1)
    assert (case.job.doubtful, case.job.owned_count) == (FIRST, 3)


def test_who_gives_back_has_not_begun() -> None:
    case = Case()
    case.lose()
    case.ledger.do(GiveBack(case.job.id, case.grant, FIRST))
    assert (case.job.doubtful, FIRST - case.job.waiting) == (EMPTY, EMPTY)


def test_what_may_have_begun_does_not_move() -> None:
    case = Case()
    moved = case.ledger.do(Transfer(case.job.id, case.grant, ALL, Q, 1))
    assert isinstance(moved, Placed)
    assert moved.tasks == REST


@pytest.mark.parametrize(
    ("verdict", "data", "state"),
    [
        (Verdict.SUCCEEDED, chunks.pack([HIS]), JobState.SUCCEEDED),
        (Verdict.FAILED, b"", JobState.FAILED),
    ],
)
def test_a_person_ends_what_is_unknown(verdict: Verdict, data: bytes, state: JobState) -> None:
    case = Case()
    case.lose()
    case.ledger.end(case.job, case.ledger.place(case.job, Q), Cause.OK)
    assert case.decide(FIRST, verdict, data)
    assert case.job.state is state
    assert Decided(case.job.id, FIRST, verdict, "ann@desk", "looked") in case.ledger.events
    (recorded,) = [e for e in case.ledger.events if isinstance(e, Recorded) and e.segment.start < 1]
    (item,) = chunks.unpack(recorded.segment.data)
    assert ("ann@desk" in str(items.unpack(item)[0])) == (verdict is Verdict.FAILED)


def test_what_a_person_sends_again_is_another_attempt_and_may_be_unknown_again() -> None:
    case = Case()
    case.lose()
    assert case.decide(FIRST, Verdict.RUN_AGAIN)
    assert case.job.attempts(FIRST) == [(2, FIRST)]
    placed = case.ledger.place(case.job, Q, FIRST)
    case.ledger.do(Once(case.job.id, Started(placed.grant, FIRST, Q, 1)))
    case.ledger.do(PeerDown(Q, 1, "not heard"))
    assert case.job.doubtful == FIRST


@pytest.mark.parametrize(
    ("tasks", "verdict", "data"),
    [
        (ALL, Verdict.FAILED, b""),  # three of them only wait
        (EMPTY, Verdict.FAILED, b""),
        (TaskSet.of(0, 2), Verdict.RUN_AGAIN, b""),
        (FIRST, Verdict.SUCCEEDED, b""),
        (FIRST, Verdict.SUCCEEDED, b"no chunk"),
        (FIRST, Verdict.SUCCEEDED, chunks.pack([HIS, HIS])),
    ],
)
def test_a_decision_about_other_tasks_changes_nothing(
    tasks: TaskSet, verdict: Verdict, data: bytes
) -> None:
    case = Case()
    case.lose()
    assert not case.decide(tasks, verdict, data)
    assert case.job.doubtful == FIRST


def test_a_cancel_takes_what_is_unknown() -> None:
    case = Case()
    case.lose()
    case.ledger.do(Cancel(case.job.id))
    assert (case.job.cancelled, case.job.doubtful) == (ALL, EMPTY)
    assert case.end(FIRST).stale == FIRST


def test_a_new_generation_knows_nothing_of_what_was_granted() -> None:
    case = Case()
    case.ledger.do(NewGeneration(2, Q))
    assert case.job.doubtful == ALL


def test_a_snapshot_remembers_what_is_unknown() -> None:
    case = Case()
    case.begin(TaskSet.of(1, 2))
    case.lose()
    data = encode_machine(case.ledger.machine)
    other = Ledger()
    restore_machine(other.machine, data)
    assert other.machine.jobs[case.job.id].doubtful == TaskSet.of(0, 2)
    assert encode_machine(other.machine) == data


def test_a_job_that_holds_a_lock_can_not_start_once() -> None:
    with pytest.raises(ValueError, match="holds no lock"):
        msgspec.structs.replace(spec(1), start=Start.ONCE, hold=Hold("db"))


def test_what_a_peer_gives_back_because_nobody_there_knows_it_may_have_begun() -> None:
    case = Case()
    stall = Stall(P, Fault.GRANT, 1, "nobody knows them")
    case.ledger.do(GiveBack(case.job.id, case.grant, ALL, stall))
    assert (case.job.doubtful, case.job.waiting) == (FIRST, REST)

"""Forget, pin, run again, and who holds large results: what each command does to a job."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.copies import referenced
from p2psched.core.state import ENDED_WHOLE_MAX
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Completed,
    Envelope,
    Forget,
    Held,
    JobAdded,
    JobForgotten,
    JobReopened,
    Outcome,
    Pin,
    Place,
    Placed,
    Recorded,
    Rejected,
    Retry,
    SubmitJob,
    Submitted,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment, SentFile
from p2psched.model.limits import FORGOTTEN_MS
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import (
    ALL,
    JOB,
    Ledger,
    P,
    Q,
    blob_ref,
    complete,
    ended,
    spec,
    up,
)

SPEC = spec(retries=1)
FIRST = TaskSet.of(0, 1)


def large(index: int, *blobs: ResultBlob) -> Segment:
    return msgspec.structs.replace(ended(index, index + 1), blobs=blobs)


def value(index: int, *holders: PeerId) -> ResultBlob:
    return ResultBlob(index, "", blob_ref(index), holders)


def held(peer: PeerId, *blobs: ResultBlob, is_held: bool = False) -> Held:
    return Held(JOB, peer, tuple((b.index, b.name, b.ref.digest) for b in blobs), is_held)


def refused(outcome: Outcome) -> str:
    assert isinstance(outcome, Rejected)
    return outcome.code


@pytest.fixture
def ledger() -> Ledger:
    """Two peers are up and a job of ten tasks waits."""
    made = Ledger()
    made.do(up(P))
    made.do(up(Q))
    made.do(SubmitJob(JOB, SPEC))
    return made


def finish(ledger: Ledger, *others: Segment) -> int:
    """Tasks end well, but for what `others` say of the last ones."""
    grant = ledger.grant(ALL)
    ledger.do(complete(grant, ended(0, min((s.start for s in others), default=10)), *others))
    return grant


def fail_all(ledger: Ledger) -> None:
    """Every task fails, and again."""
    for _ in range(2):
        ledger.do(complete(ledger.grant(ALL), ended(0, 10, Cause.EXIT)))


# --- forget ---------------------------------------------------------------------------------------


def test_a_job_that_still_runs_is_not_forgotten(ledger: Ledger) -> None:
    assert refused(ledger.do(Forget(JOB))) == "refused"
    ledger.grant(ALL)
    assert refused(ledger.do(Forget(JOB))) == "refused"
    assert JOB in ledger.machine.jobs


def test_a_job_that_has_ended_is_forgotten_and_said_to_be(ledger: Ledger) -> None:
    finish(ledger)
    assert ledger.do(Forget(JOB)) == Acknowledged()
    assert ledger.events == [JobForgotten(JOB)]
    machine = ledger.machine
    assert not machine.jobs
    assert (machine.ended, machine.whole, machine.result_bytes) == ({}, {}, 0)


def test_forgetting_twice_is_as_good_as_once(ledger: Ledger) -> None:
    finish(ledger)
    ledger.do(Forget(JOB))
    assert ledger.do(Forget(JOB)) == Acknowledged()
    assert ledger.events == []


def test_a_job_that_never_was_can_not_be_forgotten(ledger: Ledger) -> None:
    assert refused(ledger.do(Forget(JobId("never")))) == "not-found"


def test_the_id_of_a_forgotten_job_starts_nothing(ledger: Ledger) -> None:
    finish(ledger)
    ledger.do(Forget(JOB))
    assert ledger.do(SubmitJob(JOB, SPEC)) == Submitted(JOB, duplicate=True)
    assert ledger.do(SubmitJob(JOB, spec(retries=2))) == Submitted(JOB, duplicate=True)
    assert ledger.events == []
    assert not ledger.machine.jobs


def test_what_comes_for_a_forgotten_job_changes_nothing_and_says_why(ledger: Ledger) -> None:
    grant = finish(ledger)
    ledger.do(Forget(JOB))
    before = ledger.machine.dump()
    assert ledger.do(complete(grant, ended(0, 10))) == Completed(stale=ALL)
    placed = ledger.do(Place(JOB, ALL, P, 1))
    assert isinstance(placed, Placed)
    assert placed.tasks == EMPTY
    assert ledger.do(held(P, value(0))) == Acknowledged()
    for command in (Cancel(JOB), Pin(JOB, pinned=True), Retry(JOB, SPEC)):
        outcome = ledger.do(command)
        assert outcome == Rejected("not-found", f"job {JOB} was forgotten")
        assert ledger.events == []
    assert ledger.machine.dump()[1:] == before[1:]  # type: ignore[index]


def test_after_a_day_the_id_of_a_forgotten_job_is_free_again(ledger: Ledger) -> None:
    finish(ledger)
    ledger.do(Forget(JOB))
    machine = ledger.machine
    for number, days in enumerate((2, 4)):
        other = JobId(f"other-{number}")
        for command in (SubmitJob(other, SPEC), Cancel(other), Forget(other)):
            index = machine.applied_index + 1
            envelope = Envelope(P, index, command)
            machine.apply(Committed(index, days * FORGOTTEN_MS, 0, (envelope,)))
    assert JOB not in machine.forgotten
    index = machine.applied_index + 1
    again = Envelope(P, index, SubmitJob(JOB, SPEC))
    outcomes, _ = machine.apply(Committed(index, 0, 0, (again,)))
    assert outcomes == [Submitted(JOB, duplicate=False)]


def test_a_forgotten_job_names_all_blobs_that_it_referred_to_once(ledger: Ledger) -> None:
    sent = BlobRef(b"s" * 32, 5)
    work = ProgramWork(("run",), files=(SentFile("a", 0o644, sent), SentFile("b", 0o644, sent)))
    other = JobId("other")
    ledger.do(SubmitJob(other, JobSpec(name="", tasks=TaskSet.of(0, 2), work=work)))
    assert ledger.machine.sent == {sent: 1}
    assert referenced(ledger.machine, P) == {sent.digest}
    placed = ledger.do(Place(other, TaskSet.of(0, 2), P, 1))
    assert isinstance(placed, Placed)
    same = (large(0, value(0, P)), large(1, ResultBlob(1, "", blob_ref(0), (P,))))
    ledger.do(msgspec.structs.replace(complete(placed.grant, *same), job=other))
    ledger.do(Forget(other))
    assert ledger.events == [JobForgotten(other, (sent, blob_ref(0)))]
    assert not ledger.machine.with_blobs
    assert not ledger.machine.sent


def test_what_nobody_asked_to_forget_is_spared_if_it_was_pinned_meanwhile(ledger: Ledger) -> None:
    finish(ledger)
    ended_ms = ledger.machine.jobs[JOB].ended_ms
    ledger.do(Pin(JOB, pinned=True))
    assert refused(ledger.do(Forget(JOB, ended_ms))) == "refused"
    assert ledger.do(Forget(JOB)) == Acknowledged()  # a person may


def test_what_nobody_asked_to_forget_is_spared_if_it_was_run_again_meanwhile(
    ledger: Ledger,
) -> None:
    fail_all(ledger)
    ended_ms = ledger.machine.jobs[JOB].ended_ms
    ledger.do(Retry(JOB, SPEC))
    finish(ledger)
    assert refused(ledger.do(Forget(JOB, ended_ms))) == "refused"
    assert ledger.do(Forget(JOB, ledger.machine.jobs[JOB].ended_ms)) == Acknowledged()


def test_what_nobody_asked_to_forget_is_spared_before_its_time(ledger: Ledger) -> None:
    """The proposer may be a leader that reckoned ahead while it was cut off."""
    finish(ledger)
    ended_ms, stamp_ms = ledger.machine.jobs[JOB].ended_ms, ledger.machine.stamp_ms
    assert refused(ledger.do(Forget(JOB, ended_ms, stamp_ms + 10_000))) == "refused"
    assert JOB in ledger.machine.jobs
    assert ledger.do(Forget(JOB, ended_ms, stamp_ms)) == Acknowledged()


# --- pin ------------------------------------------------------------------------------------------


def test_a_pin_is_set_and_taken_away_at_any_time(ledger: Ledger) -> None:
    job = ledger.machine.jobs[JOB]
    assert ledger.do(Pin(JOB, pinned=True)) == Acknowledged()
    assert job.pinned
    finish(ledger)
    assert ledger.do(Pin(JOB, pinned=False)) == Acknowledged()
    assert not job.pinned


def test_a_pin_of_an_unknown_job_says_so(ledger: Ledger) -> None:
    assert refused(ledger.do(Pin(JobId("never"), pinned=True))) == "not-found"


# --- run again ------------------------------------------------------------------------------------


def test_failed_tasks_run_again_with_all_their_retries(ledger: Ledger) -> None:
    grant = finish(ledger, ended(8, 10, Cause.TOO_LARGE))
    assert ledger.do(Retry(JOB, SPEC)) == Acknowledged()
    job = ledger.machine.jobs[JOB]
    assert ledger.events == [JobReopened(JOB, TaskSet.of(8, 10), 2)]
    assert (job.state, job.waiting, job.failed) == (JobState.RUNNING, TaskSet.of(8, 10), EMPTY)
    assert (job.full, job.ended_wall_ms) == (SPEC, None)
    assert JOB in ledger.machine.unplaced
    again = ledger.grant(ALL, Q)
    assert again > grant
    ledger.do(complete(again, ended(8, 10, Cause.EXIT)))
    assert job.waiting == TaskSet.of(8, 10)  # tried once more
    ledger.do(complete(ledger.grant(ALL, Q), ended(8, 10)))
    assert ledger.state is JobState.SUCCEEDED
    assert ledger.machine.ended == {JOB: None}


def test_a_task_that_runs_again_is_recorded_once_more_and_never_by_its_old_grant(
    ledger: Ledger,
) -> None:
    old = finish(ledger, ended(9, 10, Cause.TOO_LARGE))
    ledger.do(Retry(JOB, SPEC))
    new = ledger.grant(ALL, Q)
    late = ledger.do(complete(old, ended(9, 10)))
    assert isinstance(late, Completed)
    assert not late.accepted
    assert not [event for event in ledger.events if isinstance(event, Recorded)]
    assert ledger.do(complete(new, ended(9, 10))) == Completed(TaskSet.of(9, 10))
    assert isinstance(ledger.do(complete(new, ended(9, 10))), Completed)
    assert not [event for event in ledger.events if isinstance(event, Recorded)]


def test_only_the_tasks_that_were_asked_for_run_again(ledger: Ledger) -> None:
    finish(ledger, ended(8, 10, Cause.TOO_LARGE))
    ledger.do(Retry(JOB, SPEC, TaskSet.of(0, 9)))
    job = ledger.machine.jobs[JOB]
    assert (job.waiting, job.failed) == (TaskSet.of(8, 9), TaskSet.of(9, 10))
    ledger.do(complete(ledger.grant(ALL), ended(8, 9)))
    assert ledger.state is JobState.FAILED


def test_failed_tasks_of_a_running_job_run_again_at_once(ledger: Ledger) -> None:
    grant = ledger.grant(ALL)
    ledger.do(complete(grant, ended(0, 1, Cause.TOO_LARGE)))
    ledger.do(Retry(JOB, SPEC))
    assert ledger.events == [JobReopened(JOB, FIRST, 1)]
    assert ledger.machine.jobs[JOB].waiting == FIRST
    ledger.do(complete(ledger.grant(FIRST, Q), ended(0, 1)))
    ledger.do(complete(grant, ended(1, 10)))
    assert ledger.state is JobState.SUCCEEDED


def test_where_nothing_failed_nothing_runs_again(ledger: Ledger) -> None:
    finish(ledger)
    assert ledger.do(Retry(JOB, SPEC)) == Acknowledged()
    assert ledger.events == []
    assert ledger.state is JobState.SUCCEEDED


def test_a_cancelled_job_is_not_run_again(ledger: Ledger) -> None:
    ledger.do(Cancel(JOB))
    assert refused(ledger.do(Retry(JOB, SPEC))) == "refused"
    assert ledger.state is JobState.CANCELLED


def test_another_spec_than_the_jobs_is_not_run(ledger: Ledger) -> None:
    fail_all(ledger)
    assert refused(ledger.do(Retry(JOB, spec(retries=2)))) == "usage"
    assert ledger.state is JobState.FAILED


def test_a_repeated_proposal_runs_a_task_again_once(ledger: Ledger) -> None:
    fail_all(ledger)
    ledger.do(Retry(JOB, SPEC), request=7)
    fail_all(ledger)
    assert ledger.do(Retry(JOB, SPEC), request=7) == Acknowledged()
    assert ledger.events == []
    assert ledger.state is JobState.FAILED


def test_a_repeated_proposal_neither_unpins_nor_takes_a_holder_away_twice(ledger: Ledger) -> None:
    finish(ledger, large(9, value(9, P)))
    ledger.do(Pin(JOB, pinned=False), request=7)
    ledger.do(held(P, value(9)), request=8)
    ledger.do(Pin(JOB, pinned=True))
    ledger.do(held(P, value(9), is_held=True))
    ledger.do(Pin(JOB, pinned=False), request=7)
    ledger.do(held(P, value(9)), request=8)
    job = ledger.machine.jobs[JOB]
    assert (job.pinned, job.lost) == (True, EMPTY)


def test_a_job_that_ended_long_ago_runs_again_too(ledger: Ledger) -> None:
    fail_all(ledger)
    for number in range(ENDED_WHOLE_MAX):
        other = JobId(f"other-{number}")
        ledger.machine.apply(
            Committed(
                ledger.machine.applied_index + 1,
                0,
                0,
                (Envelope(Q, number, SubmitJob(other, SPEC)), Envelope(Q, -number, Cancel(other))),
            )
        )
    assert JOB not in ledger.machine.whole
    assert ledger.machine.jobs[JOB].committed == {}
    ledger.do(Retry(JOB, SPEC))
    finish(ledger)
    assert ledger.state is JobState.SUCCEEDED
    assert JOB in ledger.machine.whole


def test_a_job_that_runs_again_can_be_cancelled_and_keeps_its_results(ledger: Ledger) -> None:
    finish(ledger, ended(9, 10, Cause.TOO_LARGE))
    ledger.do(Retry(JOB, SPEC))
    ledger.do(Cancel(JOB))
    job = ledger.machine.jobs[JOB]
    assert (job.state, job.succeeded) == (JobState.CANCELLED, TaskSet.of(0, 9))
    assert job.cancelled == TaskSet.of(9, 10)


def test_an_ended_job_keeps_no_spec_and_what_was_added_carries_it(ledger: Ledger) -> None:
    ledger.do(SubmitJob(JobId("other"), SPEC))
    assert ledger.events == [JobAdded(JobId("other"), SPEC)]
    assert ledger.machine.jobs[JOB].full == SPEC
    finish(ledger)
    assert ledger.machine.jobs[JOB].full is None
    assert not hasattr(ledger.machine.jobs[JOB].spec, "work")

"""Jobs that come after others: who is released or aborted, by which command, and what stays."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from p2psched.core import dependencies
from p2psched.core.capture import Capture
from p2psched.core.levels import AFTER_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks
from p2psched.model.actions import Elapsed
from p2psched.model.after import PARENTS_MAX, After, Ancestor, JobAborted, JobReleased
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    Envelope,
    Forget,
    JobEnded,
    NewGeneration,
    Place,
    Placed,
    Rejected,
    Retry,
    SubmitJob,
    Submitted,
)
from p2psched.model.execution import Committed
from p2psched.model.hold import Hold
from p2psched.model.job import Cause, JobSpec, JobState, Segment
from p2psched.model.job_head import digest_of
from p2psched.model.needs import NOTHING
from p2psched.model.precedence import Precedence
from p2psched.model.retry import TimeLimits
from p2psched.model.taskset import EMPTY
from tests.core.choosy_rig import A, Cluster, job_id, spec


def after(*parents: int, goes_on: bool = False, count: int = 1) -> JobSpec:
    return replace(spec(count), after=After(tuple(map(job_id, parents)), goes_on))


class Jobs(Cluster):
    """One peer."""

    def __init__(self, level: int = AFTER_LEVEL) -> None:
        super().__init__({A: NOTHING}, level=level)

    def add(self, number: int, wanted: JobSpec) -> None:
        assert isinstance(self.submit(number, wanted), Submitted)

    def own(self, number: int) -> list[int]:
        """Under which grants."""
        self.do(Place(job_id(number), self.job(number).spec.tasks, A, self.incarnations[A]))
        return list(self.job(number).grants)

    def finish(self, number: int, cause: Cause = Cause.OK) -> None:
        """All its tasks end so, in one command."""
        (grant,) = self.job(number).grants or self.own(number)
        segments = tuple(
            Segment(start, stop, cause, chunks.pack([b"x"] * (stop - start)), 1_000)
            for start, stop in self.job(number).spec.tasks.ranges
        )
        self.do(Complete(job_id(number), grant, segments))

    def states(self, *numbers: int) -> list[JobState]:
        return [self.job(number).state for number in numbers]

    def of_last_command(self) -> list[object]:
        last = self.machine.command_index
        return [stamped.event for stamped in self.stamped if stamped.index == last]


def test_a_job_runs_nothing_until_the_command_that_ends_the_last_one_before_it() -> None:
    jobs = Jobs()
    jobs.add(1, spec(3))
    jobs.add(2, spec())
    jobs.add(3, after(1, 2))
    assert jobs.own(3) == []
    assert job_id(3) not in jobs.machine.unplaced
    jobs.finish(1)
    assert jobs.job(3).ready == EMPTY
    jobs.finish(2)
    assert JobReleased(job_id(3), job_id(2)) in jobs.of_last_command()
    assert job_id(3) in jobs.machine.unplaced
    jobs.finish(3)
    assert jobs.states(1, 2, 3) == [JobState.SUCCEEDED] * 3


def test_it_is_not_placed_in_the_entry_that_brings_it() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    commands = [SubmitJob(job_id(2), after(1)), SubmitJob(job_id(3), spec())]
    placed = jobs.coordinator.first_placements([Envelope(A, 9, each) for each in commands])
    assert [each.job for each in placed if isinstance(each, Place)] == [job_id(3)]


def test_what_has_ended_before_counts_at_once() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.finish(1)
    jobs.add(2, after(1))
    assert jobs.own(2)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_bad_end_aborts_all_that_come_after_it_in_the_same_command(state: JobState) -> None:
    jobs = Jobs()
    jobs.add(1, replace(spec(), name="first"))
    jobs.add(9, spec())
    jobs.add(2, after(1))
    jobs.add(3, after(2, 9, count=5))
    jobs.add(4, after(3, goes_on=True))
    if state is JobState.FAILED:
        jobs.finish(1, Cause.EXIT)
    else:
        jobs.do(Cancel(job_id(1)))
    ancestor = Ancestor(job_id(1), "first", state.value)
    assert jobs.of_last_command()[-5:] == [
        JobAborted(job_id(2), job_id(1), ancestor),
        JobEnded(job_id(2), JobState.ABORTED),
        JobAborted(job_id(3), job_id(2), ancestor),
        JobEnded(job_id(3), JobState.ABORTED),
        JobReleased(job_id(4), job_id(3)),
    ]
    assert jobs.job(3).cancelled == jobs.job(3).spec.tasks
    jobs.finish(4)
    jobs.finish(9)  # nobody waits for it any more
    assert jobs.of_last_command()[-1] == JobEnded(job_id(9), JobState.SUCCEEDED)


def test_one_that_goes_on_waits_for_all_however_they_end() -> None:
    jobs = Jobs()
    for number in (1, 2):
        jobs.add(number, spec())
    jobs.add(3, after(1, 2, goes_on=True))
    jobs.finish(1, Cause.EXIT)
    assert jobs.own(3) == []
    jobs.do(Cancel(job_id(2)))
    jobs.finish(3)
    assert jobs.states(3) == [JobState.SUCCEEDED]


def test_what_came_after_a_bad_end_is_accepted_and_aborted_at_once() -> None:
    jobs = Jobs()
    for number in (1, 2):
        jobs.add(number, spec())
    jobs.finish(1, Cause.EXIT)
    jobs.add(3, after(1, 2))
    assert jobs.states(3) == [JobState.ABORTED]
    assert not jobs.machine.lineage.children, "nor waits for the other"


def test_a_waiting_job_may_be_cancelled_and_aborts_those_after_it() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, after(1))
    jobs.add(3, after(2))
    assert jobs.do(Cancel(job_id(2))) == Acknowledged()
    assert jobs.states(2, 3) == [JobState.CANCELLED, JobState.ABORTED]
    jobs.finish(1)
    assert jobs.states(1, 2, 3)[1:] == [JobState.CANCELLED, JobState.ABORTED]


def test_what_is_not_known_or_forgotten_is_refused_by_name() -> None:
    jobs = Jobs()
    refused = jobs.do(SubmitJob(job_id(2), after(1)), request=77)
    assert refused == Rejected(
        "not-found", f"no job {job_id(1)} to come after: `p2psched jobs` lists them"
    )
    jobs.add(1, spec())
    again = jobs.do(SubmitJob(job_id(2), after(1)), request=77)
    assert again == refused, "the same proposal, committed once more"
    jobs.finish(1)
    jobs.do(Forget(job_id(1)))
    refused = jobs.submit(2, after(1))
    assert isinstance(refused, Rejected)
    assert "forgotten" in refused.message
    jobs.add(3, after(1, goes_on=True))
    assert jobs.own(3)


def test_a_parent_that_is_waited_for_cannot_be_forgotten() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, after(1))
    assert isinstance(jobs.do(Forget(job_id(1))), Rejected)


def test_running_a_failed_parent_again_brings_back_no_aborted_job() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, after(1))
    jobs.finish(1, Cause.EXIT)
    assert jobs.do(Retry(job_id(1), spec())) == Acknowledged()
    jobs.finish(1)
    assert jobs.states(1, 2) == [JobState.SUCCEEDED, JobState.ABORTED]
    refused = jobs.do(Retry(job_id(2), after(1)))
    assert isinstance(refused, Rejected)
    assert str(job_id(1)) in refused.message


def test_limits_of_time_count_from_the_release() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, replace(after(1), times=TimeLimits(queue_ms=1_000, total_ms=5_000)))
    jobs.now_ms += 60_000
    jobs.finish(1)
    assert not jobs.job(2).ended
    jobs.now_ms += 1_000
    jobs.do(Elapsed(jobs.now_ms))
    assert jobs.states(2) == [JobState.FAILED]


@pytest.mark.parametrize("in_order", [False, True])
def test_a_lock_is_claimed_from_the_release_on(in_order: bool) -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, replace(after(1, count=2), hold=Hold("press", in_order=in_order)))
    assert not jobs.machine.lock_claims
    jobs.finish(1)
    assert len(jobs.machine.lock_claims) == 1


def test_older_versions_are_told_of_no_such_job() -> None:
    jobs = Jobs(level=AFTER_LEVEL - 1)
    jobs.add(1, spec())
    refused = jobs.submit(2, after(1))
    assert isinstance(refused, Rejected)
    assert f"feature level {AFTER_LEVEL}" in refused.message


def test_the_digest_of_a_spec_without_parents_is_what_it_was() -> None:
    ranked = replace(spec(3), precedence=Precedence(3))
    assert digest_of(spec(3)).hex() == "f244d0b2e637ef12e992423b34077f56"
    assert digest_of(ranked).hex() == "c4eb808e15ea7ce014f22aafe653e828"
    found = {digest_of(each) for each in (spec(), after(1), after(2), after(1, goes_on=True))}
    assert len(found) == 4


@pytest.mark.parametrize(
    "wrong", [(), (job_id(1),) * 2, ("1",), tuple(map(job_id, range(PARENTS_MAX + 1)))]
)
def test_what_no_job_can_come_after_is_refused(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="after"):
        After(wrong)  # type: ignore[arg-type]


def test_no_more_wait_than_one_command_may_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "AWAITING_JOBS_MAX", 2)
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, after(1))
    jobs.add(3, after(1))
    refused = jobs.submit(4, after(1))
    assert isinstance(refused, Rejected)
    assert refused.code == "unavailable"
    jobs.finish(1)
    jobs.add(4, after(2))


def test_a_restored_state_releases_whom_the_first_one_does() -> None:
    jobs = Jobs()
    for number in (1, 2):
        jobs.add(number, spec())
    jobs.add(3, after(1, 2))
    jobs.add(4, after(3, goes_on=True))
    jobs.finish(1)
    other = Machine()
    restore_machine(other, encode_machine(jobs.machine))
    assert other.dump() == jobs.machine.dump()
    index = other.applied_index + 1
    batch = Committed(index, 20_000, 0, (Envelope(A, 99, Cancel(job_id(2))),))
    assert other.apply(batch) == jobs.machine.apply(batch)
    assert other.jobs[job_id(3)].state is JobState.ABORTED
    assert encode_machine(other) == encode_machine(jobs.machine)


def test_a_generation_that_goes_on_from_a_copy_releases_too() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, after(1))
    jobs.own(1)
    jobs.do(NewGeneration(jobs.machine.generation + 1, A))
    jobs.restart(A)
    jobs.finish(1)
    assert jobs.own(2)


@pytest.mark.parametrize("last", [Cancel(job_id(1)), Elapsed(99_000)])
def test_a_capture_holds_what_the_end_of_another_job_changes(last: Command) -> None:
    jobs = Jobs()
    jobs.add(1, replace(spec(), times=TimeLimits(total_ms=5_000)))
    jobs.add(2, after(1))
    jobs.add(3, after(2, goes_on=True))
    wanted = encode_machine(jobs.machine)
    taken = Capture(jobs.machine)
    jobs.now_ms = 99_000
    batch = Committed(jobs.machine.applied_index + 1, 99_000, 99_000, (Envelope(A, 99, last),))
    taken.before([batch])
    jobs.machine.apply(batch)
    assert jobs.states(2) == [JobState.ABORTED]
    assert b"".join(taken.pieces()) == wanted


def test_a_long_row_of_aborted_jobs_is_one_command() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    for number in range(2, 2_002):
        jobs.machine.apply(
            Committed(
                jobs.machine.applied_index + 1,
                jobs.now_ms,
                0,
                (Envelope(A, number, SubmitJob(job_id(number), after(number - 1))),),
            )
        )
    jobs.do(Cancel(job_id(1)))
    assert not jobs.machine.running
    assert jobs.job(2_001).aborted_by == Ancestor(job_id(1), "job", "cancelled")


def test_a_place_of_a_waiting_job_grants_nothing() -> None:
    jobs = Jobs()
    jobs.add(1, spec())
    jobs.add(2, after(1, count=1_000_000))
    outcome = jobs.do(Place(job_id(2), jobs.job(2).spec.tasks, A, 1))
    assert isinstance(outcome, Placed)
    assert outcome.tasks == EMPTY

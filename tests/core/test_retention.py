"""What the coordinator proposes to forget, and when."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core import retention
from p2psched.core.machine import Machine
from p2psched.core.retention import FORGETS_MAX, GRACE_MS, LOOKS_MAX, Retention
from p2psched.model import chunks
from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Envelope,
    Forget,
    JobEnded,
    JobForgotten,
    Outcome,
    Pin,
    Place,
    Placed,
    Retry,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.taskset import TaskSet
from tests.core.test_machine import P, spec, up

ONE = TaskSet.of(0, 1)
KEEP_MS = 10_000
KEEP_BYTES = 1_000
ASK_AGAIN_MS = 5_000


class Kept:
    """A coordinator's machine and what it would forget."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.retention = Retention(self.machine, keep_ms=KEEP_MS, keep_bytes=KEEP_BYTES)
        self.retention.begin()
        self.now_ms = 0
        self.do(up(P))

    def do(self, command: Command) -> Outcome:
        index = self.machine.applied_index + 1
        envelope = Envelope(P, index, command)
        outcomes, stamped = self.machine.apply(Committed(index, self.now_ms, 0, (envelope,)))
        for each in stamped:
            self.retention.on_event(each.event)
        return outcomes[0]

    def end(
        self,
        name: str,
        *,
        size: int = 0,
        keep_ms: int | None = None,
        pinned: bool = False,
        cause: Cause = Cause.OK,
    ) -> JobId:
        """A job that ends now with a result of `size` bytes."""
        job = JobId(name)
        self.do(SubmitJob(job, msgspec.structs.replace(spec(ONE), keep_ms=keep_ms)))
        if pinned:
            self.do(Pin(job, pinned=True))
        placed = self.do(Place(job, ONE, P, 1))
        assert isinstance(placed, Placed)
        data = chunks.pack([bytes(size)])
        self.do(Complete(job, placed.grant, (Segment(0, 1, cause, data),)))
        return job

    def asked(self) -> list[JobId]:
        """What is proposed now; nothing of it is committed."""
        return [forget.job for forget in self.retention.to_forget(self.now_ms)]

    def forget(self) -> list[JobId]:
        """What is proposed now, and committed."""
        forgets = self.retention.to_forget(self.now_ms)
        for forget in forgets:
            self.do(forget)
        return [forget.job for forget in forgets]


@pytest.fixture
def kept() -> Kept:
    return Kept()


# --- age ------------------------------------------------------------------------------------------


def test_a_job_is_forgotten_when_it_ended_long_enough_ago(kept: Kept) -> None:
    job = kept.end("one")
    kept.now_ms = KEEP_MS - 1
    assert kept.asked() == []
    kept.now_ms = KEEP_MS
    assert kept.asked() == [job]


def test_a_job_may_say_itself_how_long_it_is_kept(kept: Kept) -> None:
    short, long = kept.end("short", keep_ms=100), kept.end("long", keep_ms=10 * KEEP_MS)
    kept.now_ms = 100
    assert kept.forget() == [short]
    kept.now_ms = 10 * KEEP_MS - 1
    assert kept.forget() == []
    kept.now_ms = 10 * KEEP_MS
    assert kept.forget() == [long]


def test_age_counts_from_the_end_and_not_from_the_submit(kept: Kept) -> None:
    kept.do(SubmitJob(JobId("slow"), spec(ONE)))
    kept.now_ms = 5 * KEEP_MS
    assert kept.asked() == []
    kept.do(Cancel(JobId("slow")))
    kept.now_ms = 6 * KEEP_MS - 1
    assert kept.asked() == []
    kept.now_ms = 6 * KEEP_MS
    assert kept.asked() == ["slow"]


def test_age_counts_from_the_last_end_of_a_job_that_ran_again(kept: Kept) -> None:
    job = kept.end("again", cause=Cause.TOO_LARGE)
    kept.now_ms = KEEP_MS - 1
    kept.do(Retry(job, spec(ONE)))
    kept.now_ms = 2 * KEEP_MS
    assert kept.asked() == []  # it runs
    kept.do(Cancel(job))
    kept.now_ms = 3 * KEEP_MS - 1
    assert kept.asked() == []
    kept.now_ms = 3 * KEEP_MS
    assert kept.forget() == [job]


def test_a_proposal_names_the_end_that_it_is_about(kept: Kept) -> None:
    kept.now_ms = 77
    job = kept.end("one")
    kept.now_ms = 77 + KEEP_MS
    assert kept.retention.to_forget(kept.now_ms) == [Forget(job, 77, 77 + KEEP_MS)]


def test_how_long_a_job_is_kept_can_be_shown(kept: Kept) -> None:
    jobs = kept.machine.jobs
    assert kept.retention.keep_ms(jobs[kept.end("one")]) == KEEP_MS
    assert kept.retention.keep_ms(jobs[kept.end("two", keep_ms=5)]) == 5
    assert kept.retention.keep_ms(jobs[kept.end("three", pinned=True)]) is None


# --- bytes and jobs -------------------------------------------------------------------------------


def test_the_oldest_results_go_when_there_are_too_many_bytes(kept: Kept) -> None:
    keep_ms = 10 * GRACE_MS
    jobs = [kept.end(f"job-{number}", size=300, keep_ms=keep_ms) for number in range(5)]
    kept.now_ms = GRACE_MS
    assert kept.forget() == jobs[:2]
    assert kept.machine.result_bytes <= KEEP_BYTES
    assert kept.forget() == []


def test_nobody_is_forgotten_for_bytes_within_a_minute(kept: Kept) -> None:
    kept.end("one", size=2 * KEEP_BYTES, keep_ms=10 * GRACE_MS)
    kept.now_ms = GRACE_MS // 2
    kept.end("two", size=2 * KEEP_BYTES, keep_ms=10 * GRACE_MS)
    kept.now_ms = GRACE_MS - 1
    assert kept.asked() == []
    kept.now_ms = GRACE_MS + 1_000
    assert kept.forget() == ["one"]
    kept.now_ms = 2 * GRACE_MS
    assert kept.forget() == ["two"]


def test_the_oldest_jobs_go_when_there_are_too_many(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ENDED_JOBS_MAX", 3)
    jobs = [kept.end(f"job-{number}") for number in range(5)]
    assert kept.forget() == jobs[:2]
    assert kept.forget() == []


def test_running_jobs_are_not_counted(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ENDED_JOBS_MAX", 1)
    for number in range(5):
        kept.do(SubmitJob(JobId(f"job-{number}"), spec(ONE)))
    kept.end("ended")
    assert kept.asked() == []


# --- pinned ---------------------------------------------------------------------------------------


def test_a_pinned_job_is_never_proposed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ENDED_JOBS_MAX", 0)
    kept.end("pinned", size=9 * KEEP_BYTES, pinned=True)
    for hours in range(10):
        kept.now_ms = hours * 3_600_000
        assert kept.asked() == []


def test_a_pinned_job_keeps_no_other_from_being_forgotten(kept: Kept) -> None:
    kept.end("pinned", size=9 * KEEP_BYTES, pinned=True)
    other = kept.end("other", size=1, keep_ms=10 * GRACE_MS)
    kept.now_ms = GRACE_MS
    assert kept.forget() == [other]


def test_a_job_that_is_pinned_no_more_is_forgotten_soon(kept: Kept) -> None:
    job = kept.end("one", pinned=True)
    kept.now_ms = 2 * KEEP_MS
    assert kept.asked() == []
    kept.do(Pin(job, pinned=False))
    kept.now_ms += ASK_AGAIN_MS
    assert kept.asked() == [job]


def test_any_number_of_pinned_jobs_costs_so_many_looks_a_round(kept: Kept) -> None:
    for number in range(LOOKS_MAX + 50):
        kept.end(f"pinned-{number}", pinned=True)
    other = kept.end("the last")
    kept.now_ms = KEEP_MS
    assert kept.asked() == []
    assert kept.asked() == [other]


# --- proposals ------------------------------------------------------------------------------------


def test_what_was_proposed_is_proposed_again_only_after_a_while(kept: Kept) -> None:
    job = kept.end("one")
    kept.now_ms = KEEP_MS
    assert kept.asked() == [job]
    kept.now_ms += ASK_AGAIN_MS - 1
    assert kept.asked() == []
    kept.now_ms += 1
    assert kept.asked() == [job]


def test_what_goes_for_its_bytes_is_proposed_again_only_after_a_while(kept: Kept) -> None:
    job = kept.end("one", size=2 * KEEP_BYTES, keep_ms=10 * GRACE_MS)
    kept.now_ms = GRACE_MS
    assert kept.asked() == [job]
    kept.now_ms += ASK_AGAIN_MS - 1
    assert kept.asked() == []
    kept.now_ms += 1_001
    assert kept.asked() == [job]


def test_one_round_proposes_only_so_many(kept: Kept) -> None:
    for number in range(FORGETS_MAX + 10):
        kept.end(f"job-{number}")
    kept.now_ms = KEEP_MS
    assert len(kept.forget()) == FORGETS_MAX
    assert len(kept.forget()) == 10


def test_each_round_forgets_as_many_as_came_however_many_that_are(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ENDED_JOBS_MAX", 3)
    for number in range(3):
        kept.end(f"job-{number}")
    for number in range(200):
        assert not kept.retention.is_due(kept.now_ms)
        kept.end(f"more-{number}")
        assert kept.retention.is_due(kept.now_ms)
        assert len(kept.forget()) == 1
    assert len(kept.machine.ended) == 3


def test_long_rounds_and_late_commits_of_a_flood_leave_nothing_behind(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 jobs end in a second of twelve rounds, and a commit takes a quarter of a second."""
    monkeypatch.setattr(retention, "ENDED_JOBS_MAX", 100)
    a_round, rounds_a_commit = 170, 3
    under_way: list[list[Forget]] = []
    for turn in range(30):
        kept.now_ms += 80
        for number in range(a_round):
            kept.end(f"job-{turn}-{number}")
        under_way.append(kept.retention.to_forget(kept.now_ms))
        if len(under_way) > rounds_a_commit:
            for forget in under_way.pop(0):
                kept.do(forget)
        assert len(kept.machine.ended) <= 100 + a_round * (rounds_a_commit + 1)


def test_what_is_proposed_and_not_committed_is_bounded_and_counts(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ENDED_JOBS_MAX", 0)
    monkeypatch.setattr(retention, "OPEN_MAX", FORGETS_MAX + 6)
    jobs = [kept.end(f"job-{number}") for number in range(FORGETS_MAX + 10)]
    assert kept.asked() == jobs[:FORGETS_MAX]
    assert kept.asked() == jobs[FORGETS_MAX : FORGETS_MAX + 6]
    assert kept.asked() == []
    kept.now_ms = ASK_AGAIN_MS
    assert kept.asked() == jobs[:FORGETS_MAX], "all of that was lost"


def test_pinned_jobs_are_looked_at_anew_each_second_while_there_are_too_many(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ENDED_JOBS_MAX", 1)
    pinned = [kept.end(f"pinned-{number}", pinned=True) for number in range(3)]
    assert kept.asked() == []
    kept.do(Pin(pinned[1], pinned=False))
    assert not kept.retention.is_due(999)
    kept.now_ms = 1_000
    assert kept.retention.is_due(1_000)
    assert kept.forget() == [pinned[1]]


def test_a_job_that_is_too_old_and_too_large_is_proposed_once(kept: Kept) -> None:
    job = kept.end("one", size=2 * KEEP_BYTES)
    kept.now_ms = GRACE_MS + KEEP_MS
    assert kept.asked() == [job]


def test_who_begins_to_coordinate_knows_what_ended_before(kept: Kept) -> None:
    job = kept.end("one")
    kept.retention.end()
    later = kept.end("two")
    kept.retention.begin()
    kept.now_ms = KEEP_MS
    assert kept.asked() == [job, later]
    kept.retention.end()
    kept.retention.begin()
    assert kept.asked() == [job, later]  # what another coordinator asked for may be lost


def test_who_does_not_coordinate_keeps_no_list(kept: Kept) -> None:
    kept.retention.end()
    for number in range(100):
        kept.end(f"job-{number}")
    assert kept.retention._due == []
    with pytest.raises(AssertionError, match="proposes nothing"):
        kept.asked()


def test_the_list_of_what_is_due_does_not_grow_with_what_was_forgotten(kept: Kept) -> None:
    for number in range(3_000):
        kept.do(Forget(kept.end(f"job-{number}", keep_ms=10**9)))
    assert len(kept.retention._due) <= 1_100


def test_an_event_about_a_job_that_is_gone_already_is_passed_over(kept: Kept) -> None:
    kept.retention.on_event(JobEnded(JobId("gone"), JobState.FAILED))
    kept.retention.on_event(JobForgotten(JobId("gone")))
    kept.now_ms = 10 * KEEP_MS
    assert kept.asked() == []

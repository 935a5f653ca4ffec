"""Jobs that ended a while ago take little, and are there as ever."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core import job_table, state
from p2psched.core.job_table import JobTable
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.retention import Retention
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import Pin, Retry
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState
from tests.core.test_machine import spec
from tests.core.test_retention import ONE, Kept

A, B, C = (JobId(name * 32) for name in "abc")


def ended(name: JobId) -> Job:
    named = msgspec.structs.replace(spec(ONE), name=f"of {name[0]}")
    job = Job.of(name, named, index=1, wall_ms=2)
    job.state, job.full = JobState.SUCCEEDED, None
    return job


def table(*names: JobId) -> JobTable:
    jobs = JobTable()
    for name in names:
        jobs[name] = ended(name)
    return jobs


def packed(jobs: JobTable) -> list[JobId]:
    return [name for name, held in jobs.held().items() if isinstance(held, bytes)]


def test_a_packed_job_is_found_by_every_way_and_whole() -> None:
    jobs = table(A, B)
    jobs.pack(A)
    assert packed(jobs) == [A]
    assert (len(jobs), list(jobs), A in jobs, C in jobs) == (2, [A, B], True, False)
    assert [job.id for job in jobs.values()] == [A, B]
    assert [(name, job.id) for name, job in jobs.items()] == [(A, A), (B, B)]
    assert [job.id for job in jobs.newest()] == [B, A]
    named = jobs.named("of a")
    assert named is not None
    assert named.id == A
    assert jobs.named("of") is None
    assert packed(jobs) == [A], "who only looks changes nothing"
    assert (jobs.get(C), jobs.get(C, 3)) == (None, 3)
    twin = ended(A)
    assert all(getattr(jobs[A], field) == getattr(twin, field) for field in Job.__struct_fields__)


def test_what_is_changed_stays_so_when_it_is_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_table, "UNPACKED_MAX", 1)
    jobs = table(A, B, C)
    for name in (A, B, C):
        jobs.pack(name)
    jobs[A].pinned = True
    assert packed(jobs) == [B, C]
    assert jobs[A] is jobs[A], "it is one job, as long as somebody works on it"
    assert not jobs[B].pinned
    assert packed(jobs) == [A, C]
    assert jobs[A].pinned


def test_who_has_just_come_is_not_packed_for_having_been_there_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_table, "UNPACKED_MAX", 1)
    jobs = table(A)
    for pinned in (True, False, True):
        jobs.pack(A)
        jobs[A].pinned = pinned
        assert jobs[A].pinned is pinned


def test_what_runs_again_is_not_packed() -> None:
    jobs = table(A)
    jobs[A].state = JobState.RUNNING
    jobs.pack(A)
    assert packed(jobs) == []
    jobs.pack(B)  # it was forgotten meanwhile


def test_a_ledger_packs_what_ended_a_while_ago_and_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = Kept()
    for number in range(6):
        objects.end(f"job-{number}", cause=Cause.TOO_LARGE if number == 1 else Cause.OK)
    monkeypatch.setattr(state, "ENDED_WHOLE_MAX", 2)
    monkeypatch.setattr(job_table, "UNPACKED_MAX", 1)
    kept = Kept()
    for number in range(6):
        kept.end(f"job-{number}", cause=Cause.TOO_LARGE if number == 1 else Cause.OK)
    assert packed(kept.machine.jobs) == [f"job-{number}" for number in range(4)]
    assert kept.machine.state_hash == objects.machine.state_hash
    kept.do(Pin(JobId("job-0"), pinned=True))
    kept.do(Retry(JobId("job-1"), spec(ONE)))
    assert list(kept.machine.running) == ["job-1"]
    assert kept.machine.jobs[JobId("job-2")].succeeded == ONE
    assert kept.machine.jobs[JobId("job-3")].succeeded == ONE
    assert kept.machine.jobs[JobId("job-0")].pinned

    told = encode_machine(kept.machine)
    again = Machine()
    restore_machine(again, told)
    assert packed(again.jobs) == ["job-0", "job-2", "job-3"]
    assert encode_machine(again) == told
    assert again.dump() == kept.machine.dump()


def test_who_begins_to_coordinate_looks_at_no_job_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "ENDED_WHOLE_MAX", 1)
    kept = Kept()
    for number in range(5):
        kept.end(f"job-{number}", keep_ms=100)
    before = packed(kept.machine.jobs)
    later = Retention(kept.machine, keep_ms=1, keep_bytes=1_000)
    later.begin()
    assert packed(kept.machine.jobs) == before
    assert later.is_due(0)
    assert later.to_forget(0) == []
    assert not later.is_due(99)
    assert [forget.job for forget in later.to_forget(100)] == list(kept.machine.ended)

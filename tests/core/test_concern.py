"""Whom the commit of an entry concerns."""

from __future__ import annotations

import pytest

from p2psched.core.raft.concern import JOBS_KNOWN_MAX, Concern
from p2psched.model.actions import Act
from p2psched.model.commands import Cancel, Command, Complete, Envelope, Place, SubmitJob
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.key_actions import PutKey
from p2psched.model.lease_actions import KeepLeases
from p2psched.model.taskset import TaskSet

A, B, C = map(PeerId, "abc")
JOB = JobId("j" * 32)
SPEC = JobSpec(name="", tasks=TaskSet.of(0, 1), work=ProgramWork(("true",)))


def of(concern: Concern, *said: tuple[PeerId, Command]) -> frozenset[PeerId] | None:
    return concern.of(Envelope(peer, number, what) for number, (peer, what) in enumerate(said))


def test_a_job_concerns_through_whom_it_came_and_who_gets_it() -> None:
    placed = Place(JOB, SPEC.tasks, B, 1)
    assert of(Concern(), (A, SubmitJob(JOB, SPEC)), (C, placed)) == frozenset({A, B, C})


def test_results_concern_their_owner_and_through_whom_the_job_came() -> None:
    concern = Concern()
    of(concern, (A, SubmitJob(JOB, SPEC)))
    assert of(concern, (B, Complete(JOB, 5, ()))) == frozenset({A, B})


def test_results_of_a_job_that_came_to_another_leader_concern_everybody() -> None:
    assert of(Concern(), (B, Complete(JOB, 5, ()))) is None


def test_a_change_of_keys_concerns_who_asked_and_a_lease_may_concern_whoever_waits() -> None:
    put, keep = Act(1, 1, 1, PutKey("k", b"")), Act(1, 2, 2, KeepLeases(()))
    assert of(Concern(), (A, put), (B, put)) == frozenset({A, B})
    assert of(Concern(), (A, put), (B, keep)) is None


@pytest.mark.parametrize("place", [0, 1])
def test_whatever_else_there_is_concerns_everybody(place: int) -> None:
    said: list[tuple[PeerId, Command]] = [(A, SubmitJob(JOB, SPEC))]
    said.insert(place, (A, Cancel(JOB)))
    assert of(Concern(), *said) is None


def test_what_is_known_of_jobs_is_bounded() -> None:
    concern = Concern()
    of(concern, (A, SubmitJob(JOB, SPEC)))
    for number in range(JOBS_KNOWN_MAX):
        of(concern, (A, SubmitJob(JobId(f"{number:032}"), SPEC)))
    assert of(concern, (B, Complete(JOB, 5, ()))) is None
    assert of(concern, (B, Complete(JobId(f"{0:032}"), 5, ()))) == frozenset({A, B})

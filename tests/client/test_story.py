"""Attempts and steps as a history tells them, without a peer."""

from __future__ import annotations

from p2psched.client.attempts import Attempt, attempts_of
from p2psched.client.logs import Stream, last_lines, stream_of
from p2psched.client.story import steps_of
from p2psched.model.commands import (
    Event,
    GivenBack,
    Granted,
    JobAdded,
    JobEnded,
    JobReopened,
    PeerCameUp,
    PeerInfo,
    PeerWentDown,
    Recorded,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.history_events import HistoryCut
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.moves import Moved
from p2psched.model.taskset import TaskSet

JOB = JobId("a" * 32)
A, B = PeerId("a" * 32), PeerId("b" * 32)
BOTH = TaskSet.of(0, 2)
INFO = PeerInfo(A, 2, "a", "127.0.0.1:1", 1, 2, "1", "3.11")


def history(*events: Event) -> list[Stamped]:
    return [Stamped(n, 10 * n, 1000 + n, event) for n, event in enumerate(events, start=1)]


def granted(grant: int, peer: PeerId, tasks: TaskSet = BOTH) -> Granted:
    return Granted(JOB, grant, peer, 1, tasks)


def end(start: int, stop: int, cause: Cause) -> Segment:
    return Segment(start, stop, cause, b"", 20)


def causes(found: list[Attempt]) -> list[tuple[int, str | None, bool]]:
    return [(one.number, one.cause and one.cause.value, one.is_final) for one in found]


def test_attempts_are_grants_under_which_a_task_may_have_begun() -> None:
    events = history(
        JobAdded(JOB),
        granted(2, A),
        GivenBack(JOB, 2, A, TaskSet.of(1, 2)),
        Retried(JOB, 2, A, end(0, 1, Cause.EXIT)),
        granted(5, A),
        Moved(JOB, 5, A, TaskSet.of(0, 1), 6, B),
        granted(6, B, TaskSet.of(0, 1)),
        Revoked(JOB, 6, B, TaskSet.of(0, 1), Cause.PEER_LOST),
        granted(9, A, TaskSet.of(0, 1)),
    )
    assert causes(attempts_of(events, 0)) == [
        (1, "exit", False),
        (2, "peer-lost", False),
        (3, None, False),
    ]
    assert [one.grant for one in attempts_of(events, 1)] == [5]
    assert attempts_of(events, 2) == []


def test_attempts_count_on_when_a_task_is_run_again() -> None:
    events = history(
        granted(1, A),
        Recorded(JOB, 1, A, 0, end(0, 2, Cause.EXIT)),
        JobReopened(JOB, TaskSet.of(0, 1), 1),
        granted(4, B, TaskSet.of(0, 1)),
        Recorded(JOB, 4, B, 1, end(0, 1, Cause.OK)),
    )
    assert causes(attempts_of(events, 0)) == [(1, "exit", False), (2, "ok", True)]
    assert causes(attempts_of(events, 1)) == [(1, "exit", True)]


def test_the_loss_of_a_peer_is_a_step_of_the_jobs_that_it_owned_tasks_of() -> None:
    job = history(
        JobAdded(JOB),
        granted(2, A, TaskSet.of(0, 1)),
        granted(3, B, TaskSet.of(1, 2)),
        Recorded(JOB, 3, B, 0, end(1, 2, Cause.OK)),
    )
    peers = [
        Stamped(5, 50, 1005, PeerWentDown(A, 1, "silent")),
        Stamped(6, 60, 1006, PeerWentDown(B, 1, "silent")),
        Stamped(7, 70, 1007, PeerCameUp(INFO)),
        Stamped(8, 80, 1008, PeerCameUp(INFO)),
    ]
    later = [Stamped(9, 90, 1009, JobEnded(JOB, JobState.FAILED))]
    told = [(step.event, str(step.tasks), step.is_bad) for step in steps_of(job + later, peers)]
    assert told[-3:] == [
        ("peer lost", "0", True),
        ("peer back", "0", False),
        ("job ended", "", True),
    ]
    assert len(told) == len(job) + 3


def test_what_is_cut_is_a_step_and_demotion_is_said_of_retries_only() -> None:
    events = history(
        HistoryCut(JOB, 1234),
        Retried(JOB, 2, A, end(0, 2, Cause.TIMEOUT)),
        Recorded(JOB, 3, A, 0, end(0, 2, Cause.TIMEOUT)),
    )
    cut, retried, last = steps_of(events, [], {"timeout"})
    assert "1,234" in cut.cause
    assert retried.is_demoted
    assert not last.is_demoted
    assert (retried.busy_us, retried.wall_ms, retried.at_ms) == (10, 1002, 20)


def test_a_stream_says_each_of_its_gaps() -> None:
    pieces = Stream(20, ((0, b"abc\n"), (10, b"xyz"), (17, b"Z")))
    text = b"abc\n[... 6 bytes dropped ...]\nxyz\n[... 4 bytes dropped ...]\nZ\n"
    assert pieces.rest() == text + b"[... 2 bytes dropped ...]\n"
    assert Stream().rest() == b""
    assert stream_of({"stdout_total": 3}, "stdout", b"abc").rest(1) == b"bc"


def test_the_last_lines_of_a_text() -> None:
    assert last_lines(b"a\nb\nc\n", 2) == b"b\nc\n"
    assert last_lines(b"a\nb\nc", 1) == b"c"
    assert last_lines(b"a\nb\n", 9) == b"a\nb\n"
    assert last_lines(b"a\n", 0) == b""
    assert last_lines(b"", 3) == b""

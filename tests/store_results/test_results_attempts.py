"""Attempts that were not the last of their tasks: kept, named by grant and task, and bounded."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from p2psched.model import chunks, items
from p2psched.model.commands import (
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    Recorded,
    Retried,
    Stamped,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.results import Fill, GapResults, KnownJob
from p2psched.store import results_attempts
from p2psched.store.results import SqliteResults
from p2psched.store.results_gaps import SqliteGapResults
from p2psched.testing.sim_results import MemoryResults

JOB, OTHER = JobId("a" * 32), JobId("b" * 32)
PEER = PeerId("c" * 32)
ENOUGH = 1_000_000


@pytest.fixture(params=[SqliteGapResults, lambda _: MemoryResults()], ids=["sqlite", "memory"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GapResults]:
    make: Callable[[Path], GapResults] = request.param
    made = make(tmp_path / "results.db")
    yield made
    made.close()


def failed(start: int, stop: int, text: bytes, cause: Cause = Cause.EXIT) -> Segment:
    made = [items.pack({"exit": 1}, stdout=b"%s %d" % (text, i)) for i in range(start, stop)]
    return Segment(start, stop, cause, chunks.pack(made), busy_us=5)


def retried(grant: int, segment: Segment, job: JobId = JOB) -> Retried:
    return Retried(job, grant, PEER, segment)


def stamped(index: int, event: object) -> Stamped:
    return Stamped(index, 10 * index, 1_700_000_000_000 + index, event)  # type: ignore[arg-type]


def printed(results: GapResults | SqliteResults, index: int, grant: int) -> bytes | None:
    found = results.attempt(JOB, index, grant)
    return None if found is None else items.unpack(found[1])[2]


def spec(tasks: int) -> JobSpec:
    return JobSpec(name="n", work=ProgramWork(("true",)), tasks=TaskSet.of(0, tasks))


@pytest.mark.parametrize("tasks", [1, 10], ids=["small", "wide"])
def test_each_attempt_of_a_task_is_found_by_its_grant(results: GapResults, tasks: int) -> None:
    events = [
        stamped(1, JobAdded(JOB, spec(tasks))),
        stamped(3, retried(2, failed(0, tasks, b"first"))),
        stamped(5, retried(4, failed(0, 1, b"second", Cause.TIMEOUT))),
        stamped(7, Recorded(JOB, 6, PEER, 0, failed(0, 1, b"last"))),
    ]
    results.store(events, 1)
    assert printed(results, tasks - 1, 2) == b"first %d" % (tasks - 1)
    assert printed(results, 0, 4) == b"second 0"
    assert printed(results, 0, 6) is None  # that is its result
    assert printed(results, tasks, 2) is None
    found = results.attempt(JOB, 0, 4)
    assert found is not None
    assert (found[0].cause, found[0].data) == (Cause.TIMEOUT, b"")


def test_a_small_job_whose_attempts_print_much_keeps_all_of_them(results: GapResults) -> None:
    long = b"x" * results_attempts.IN_PAGES_BYTES_MAX
    results.store([stamped(1, JobAdded(JOB, spec(1)))], 1)
    results.store([stamped(3, retried(2, failed(0, 1, b"short")))], 2)
    results.store([stamped(5, retried(4, failed(0, 1, long)))], 3)
    results.store([stamped(7, Recorded(JOB, 6, PEER, 0, failed(0, 1, b"last")))], 4)
    assert [printed(results, 0, grant) for grant in (2, 4)] == [b"short 0", long + b" 0"]
    assert results.spec(JOB) == spec(1)
    assert len(results.segments(JOB, 0, ENOUGH).segments) == 1


def test_what_is_run_again_becomes_an_attempt_among_others(results: GapResults) -> None:
    events = [
        stamped(1, JobAdded(JOB, spec(9))),
        stamped(3, Recorded(JOB, 2, PEER, 0, failed(0, 9, b"first"))),
        stamped(4, JobEnded(JOB, JobState.FAILED)),
        stamped(5, JobReopened(JOB, TaskSet.of(3, 5), 1)),
        stamped(7, Recorded(JOB, 6, PEER, 1, failed(3, 5, b"again"))),
    ]
    results.store(events, 1)
    assert printed(results, 4, 2) == b"first 4"
    assert printed(results, 5, 2) is None
    item = results.item(JOB, 4)
    assert item is not None
    assert items.unpack(item[1])[2] == b"again 4"


def test_attempts_come_in_pages_and_go_with_their_job(results: GapResults) -> None:
    made = [retried(grant, failed(0, 2, b"y" * 500)) for grant in range(2, 12)]
    added = [stamped(1, JobAdded(JOB, spec(5))), stamped(1, JobAdded(OTHER, spec(5)))]
    other = stamped(40, retried(39, failed(0, 1, b"z"), OTHER))
    results.store([*added, *(stamped(20 + i, e) for i, e in enumerate(made)), other], 1)
    found: list[Retried] = []
    while page := results.attempts(JOB, place(found), 3_000):
        assert len(page) < len(made)
        found += page
    assert found == made
    results.store([stamped(50, JobForgotten(JOB))], 2)
    assert results.attempts(JOB, (-1, -1), ENOUGH) == []
    assert len(results.attempts(OTHER, (-1, -1), ENOUGH)) == 1


def place(found: list[Retried]) -> tuple[int, int]:
    return (found[-1].grant, found[-1].segment.start) if found else (-1, -1)


def test_a_filled_gap_has_the_attempts_of_before(results: GapResults) -> None:
    results.jump(5, {JOB: KnownJob(0, None, spec(4))}, 50)
    gap = results.gaps()[JOB]
    results.store([stamped(60, retried(55, failed(0, 1, b"later")))], 6)
    assert results.begin_fill(JOB, gap)
    before = (retried(20, failed(0, 3, b"before")), retried(55, failed(0, 1, b"later")))
    assert results.fill(JOB, gap, Fill(attempts=before))
    assert results.end_fill(JOB, gap)
    assert printed(results, 2, 20) == b"before 2"
    assert [event.grant for event in results.attempts(JOB, (-1, -1), ENOUGH)] == [20, 55]


def test_the_oldest_attempts_of_a_job_go_first_and_the_store_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_attempts, "JOB_BYTES_MAX", 20_000)
    monkeypatch.setattr(results_attempts, "BYTES_MAX", 50_000)
    path = tmp_path / "results.db"
    store = SqliteResults(path)
    jobs = [JobId(f"{number:032x}") for number in range(6)]
    index = 0
    for job in jobs:
        events = [stamped(index := index + 1, JobAdded(job, spec(5)))]
        for grant in range(40):
            event = retried(grant, failed(0, 1, b"w" * 800), job)
            events.append(stamped(index := index + 1, event))
        store.store(events, index)
    kept = [len(store.attempts(job, (-1, -1), ENOUGH)) for job in jobs]
    assert kept[0] == 0  # of all of them the oldest are gone ...
    newest = store.attempts(jobs[-1], (-1, -1), ENOUGH)
    assert newest[-1].grant == 39  # ... and of each the first
    assert newest[0].grant > 0
    assert 0 < store.attempt_bytes <= 50_000
    size = store.attempt_bytes
    store.close()
    again = SqliteResults(path)
    assert again.attempt_bytes == size
    assert [len(again.attempts(job, (-1, -1), ENOUGH)) for job in jobs] == kept
    again.close()


def test_a_file_from_before_attempts_were_kept_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    older = SqliteResults(path)
    older.store([stamped(1, Recorded(JOB, 2, PEER, 0, failed(0, 3, b"old")))], 1)
    older.close()
    with closing(sqlite3.connect(path)) as file:
        file.executescript("DROP TABLE attempt; PRAGMA user_version = 5")
    store = SqliteResults(path)
    assert store.applied_index == 1
    store.store([stamped(2, JobReopened(JOB, TaskSet.of(0, 1), 1))], 2)
    assert printed(store, 0, 2) == b"old 0"
    store.close()

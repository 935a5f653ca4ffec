"""What the port `Results` promises of jobs that are run again or forgotten, and of specs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2psched.model import chunks, digests, items
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import (
    Event,
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    PeerWentDown,
)
from p2psched.model.errors import Damaged
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.results import Results
from p2psched.store.results import PEER_EVENTS_MAX, PRUNE_EVERY, SqliteResults
from p2psched.testing.sim_results import MemoryResults
from tests.store_results.test_results_contract import (
    ENOUGH,
    JOB,
    OTHER,
    PEER,
    recorded,
    segment,
    stamped,
)

SPEC = JobSpec(name="", tasks=TaskSet.of(0, 40), work=ProgramWork(("true",)))
MAKERS: dict[str, Callable[[Path], Results]] = {
    "sqlite": SqliteResults,
    "memory": lambda _: MemoryResults(),
}


@pytest.fixture(params=list(MAKERS.values()), ids=list(MAKERS))
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Results]:
    make: Callable[[Path], Results] = request.param
    made = make(tmp_path / "results.db")
    yield made
    made.close()


def store(results: Results, *events: Event) -> None:
    first = results.applied_index * 100 + 1
    given = [stamped(first + place, event) for place, event in enumerate(events)]
    results.store(given, results.applied_index + 1)


def reopened(*tasks: int, position: int, job: JobId = JOB) -> JobReopened:
    return JobReopened(job, TaskSet.from_indices(tasks), position)


def all_tasks(results: Results, job: JobId = JOB) -> list[tuple[int, int]]:
    """Position and index of every task that has a result."""
    page = results.segments(job, 0, ENOUGH)
    return [
        (position, index)
        for position, part in zip(page.positions, page.segments, strict=True)
        for index in part.tasks
    ]


# --- run again ------------------------------------------------------------------------------------


def test_a_task_that_runs_again_has_no_result_until_it_has_ended_again(results: Results) -> None:
    store(results, recorded(0, segment(0, 3)), recorded(1, segment(3, 4, Cause.EXIT)))
    store(results, reopened(3, position=2))
    assert results.item(JOB, 3) is None
    assert all_tasks(results) == [(0, 0), (0, 1), (0, 2)]
    store(results, recorded(2, segment(3, 4)))
    found = results.item(JOB, 3)
    assert found is not None
    assert found[0].cause is Cause.OK
    assert all_tasks(results) == [(0, 0), (0, 1), (0, 2), (2, 3)]


def test_what_is_left_of_a_segment_stays_at_its_position(results: Results) -> None:
    whole = segment(0, 9)
    store(results, recorded(0, segment(20, 30)), recorded(1, whole), recorded(2, segment(30, 31)))
    store(results, reopened(0, 4, 5, position=3))
    page = results.segments(JOB, 1, ENOUGH)
    assert page.positions == [1, 1, 2]
    assert page.segments[:2] == whole.parts(TaskSet(((1, 4), (6, 9))))
    assert page.next_position == 3
    for index in (1, 3, 6, 8):
        found = results.item(JOB, index)
        assert found is not None
        assert found[1] == items.pack_value(b"value %d" % index)
    assert [results.item(JOB, index) for index in (0, 4, 5)] == [None, None, None]


def test_parts_that_share_a_position_are_never_torn_by_a_page(results: Results) -> None:
    store(results, recorded(0, segment(0, 9)), recorded(1, segment(9, 18)))
    store(results, reopened(1, 3, 5, 7, 10, 12, position=2))
    first = results.segments(JOB, 0, 1)
    assert (first.positions, first.next_position) == ([0] * 5, 1)
    second = results.segments(JOB, first.next_position, 1)
    assert (second.positions, second.next_position) == ([1] * 3, 2)
    assert results.segments(JOB, second.next_position, 1).segments == []


def test_a_position_that_is_empty_is_passed_over(results: Results) -> None:
    store(results, *(recorded(number, segment(number, number + 1)) for number in range(6)))
    store(results, reopened(1, 2, 5, position=6))
    page = results.segments(JOB, 1, 1)
    assert (page.positions, page.next_position) == ([3], 4)
    assert all_tasks(results) == [(0, 0), (3, 3), (4, 4)]
    end = results.segments(JOB, 5, ENOUGH)
    assert (end.segments, end.next_position) == ([], 6)


def test_a_task_may_run_again_and_again(results: Results) -> None:
    for number in range(5):
        store(results, recorded(number, segment(0, 3, Cause.EXIT)))
        store(results, reopened(0, 1, 2, position=number + 1))
    store(results, recorded(5, segment(0, 3)))
    assert all_tasks(results) == [(5, 0), (5, 1), (5, 2)]


def test_a_part_that_is_left_can_be_cut_once_more(results: Results) -> None:
    store(results, recorded(0, segment(0, 9)))
    store(results, reopened(4, position=1))
    store(results, reopened(0, 8, position=1), recorded(1, segment(4, 5)))
    assert all_tasks(results) == [(0, 1), (0, 2), (0, 3), (0, 5), (0, 6), (0, 7), (1, 4)]


def test_a_segment_without_data_keeps_the_tasks_that_are_not_run_again(results: Results) -> None:
    store(results, recorded(0, Segment(0, 4, Cause.CANCELLED, b"", busy_us=8)))
    store(results, reopened(1, position=1))
    page = results.segments(JOB, 0, ENOUGH)
    assert page.segments == [
        Segment(0, 1, Cause.CANCELLED, b"", busy_us=2),
        Segment(2, 4, Cause.CANCELLED, b"", busy_us=4),
    ]


def test_other_jobs_keep_their_results_when_one_runs_again(results: Results) -> None:
    store(results, recorded(0, segment(0, 5)), recorded(0, segment(0, 5), OTHER))
    store(results, reopened(0, 1, 2, 3, 4, position=1))
    assert all_tasks(results) == []
    assert len(all_tasks(results, OTHER)) == 5


def test_one_entry_may_hold_a_result_its_end_and_its_next_one(results: Results) -> None:
    store(
        results,
        recorded(0, segment(0, 2, Cause.EXIT)),
        reopened(0, 1, position=1),
        recorded(1, segment(0, 2)),
        reopened(1, position=2),
    )
    assert all_tasks(results) == [(1, 0)]
    assert [type(event.event).__name__ for event in results.history(JOB, 0, 100)] == [
        "Recorded",
        "JobReopened",
        "Recorded",
        "JobReopened",
    ]


def test_names_of_large_results_come_back_with_their_task(results: Results) -> None:
    blobs = tuple(
        ResultBlob(index, name, BlobRef(digests.digest_of(name.encode()), 9), (PEER,))
        for index in range(4)
        for name in ("", "weights")
    )
    whole = msgspec.structs.replace(segment(0, 4), blobs=blobs)
    store(results, recorded(0, whole))
    store(results, reopened(1, position=1))
    page = results.segments(JOB, 0, ENOUGH)
    assert [part.blobs for part in page.segments] == [blobs[:2], blobs[4:]]
    found = results.item(JOB, 2)
    assert found is not None
    assert found[0].blobs == blobs[4:]


RESULTS = st.lists(st.tuples(st.integers(0, 39), st.integers(1, 8)), max_size=12)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(RESULTS, st.sets(st.integers(0, 39), max_size=10)), max_size=6))
def test_any_results_and_retries_leave_the_newest_result_of_each_task(
    tmp_path: Path, rounds: list[tuple[list[tuple[int, int]], set[int]]]
) -> None:
    path = tmp_path / "any.db"
    for file in tmp_path.glob("any.db*"):
        file.unlink()
    with closing(SqliteResults(path)) as on_disk, closing(MemoryResults()) as in_memory:
        known: dict[int, int] = {}  # task -> position of its result
        position = 0
        for wanted, again in rounds:
            events: list[Event] = []
            for start, size in wanted:
                new = TaskSet.of(start, start + size) - TaskSet.from_indices(known)
                for low, high in new.ranges:
                    events.append(recorded(position, segment(low, high)))
                    known.update(dict.fromkeys(range(low, high), position))
                    position += 1
            if again:
                events.append(reopened(*again, position=position))
                known = {index: at for index, at in known.items() if index not in again}
            store(on_disk, *events)
            store(in_memory, *events)
        expected = sorted((at, index) for index, at in known.items())
        for results in (on_disk, in_memory):
            assert all_tasks(results) == expected
            assert _paged(results) == expected
            for index in range(48):
                assert (results.item(JOB, index) is not None) == (index in known)


def _paged(results: Results) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    page = results.segments(JOB, 0, 50)
    while page.segments:
        for position, part in zip(page.positions, page.segments, strict=True):
            found += [(position, index) for index in part.tasks]
        page = results.segments(JOB, page.next_position, 50)
    return found


# --- forgotten ------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_forgotten_job(results: Results) -> None:
    store(results, JobAdded(JOB, SPEC), recorded(0, segment(0, 5)))
    store(results, JobEnded(JOB, JobState.SUCCEEDED), JobForgotten(JOB))
    assert results.segments(JOB, 0, ENOUGH).segments == []
    assert results.item(JOB, 0) is None
    assert results.history(JOB, 0, 100) == []
    assert results.spec(JOB) is None


def test_other_jobs_stay_when_one_is_forgotten(results: Results) -> None:
    for job in (JOB, OTHER):
        store(results, JobAdded(job, SPEC), recorded(0, segment(0, 5), job))
    store(results, JobForgotten(JOB))
    assert len(all_tasks(results, OTHER)) == 5
    assert len(results.history(OTHER, 0, 100)) == 2
    assert results.spec(OTHER) == SPEC


def test_one_entry_may_hold_a_jobs_whole_life(results: Results) -> None:
    store(results, JobAdded(JOB, SPEC), recorded(0, segment(0, 5)), JobForgotten(JOB))
    assert (all_tasks(results), results.spec(JOB)) == ([], None)
    store(results, JobAdded(JOB, SPEC), recorded(0, segment(2, 3)))  # a day later
    assert all_tasks(results) == [(0, 2)]


# --- specs ----------------------------------------------------------------------------------------


def test_the_spec_of_a_job_is_kept_and_left_out_of_its_history(results: Results) -> None:
    store(results, JobAdded(JOB, SPEC), JobAdded(OTHER))
    assert results.spec(JOB) == SPEC
    assert results.spec(OTHER) is None
    assert [event.event for event in results.history(JOB, 0, 10)] == [JobAdded(JOB)]


# --- peers ----------------------------------------------------------------------------------------


def test_only_the_newest_events_of_peers_are_kept(results: Results) -> None:
    each = 2 * PEER_EVENTS_MAX // PRUNE_EVERY
    for number in range(PRUNE_EVERY):
        store(results, *(PeerWentDown(PEER, number * each + n, "") for n in range(each)))
    store(results, JobAdded(JOB))
    found = results.history(JobId(""), 0, 10 * PEER_EVENTS_MAX)
    assert len(found) == PEER_EVENTS_MAX
    events = [stamped.event for stamped in found]
    assert events[-1] == PeerWentDown(PEER, PRUNE_EVERY * each - 1, "")
    assert len(results.history(JOB, 0, 10)) == 1


# --- damage, on disk only -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "start = -1",  # a result that looks as if it had been run again
        "start = -1, stop = -1, cause = 'void', data = x'', busy_us = 0",
    ],
)
def test_damage_never_looks_like_an_empty_position(tmp_path: Path, change: str) -> None:
    path = tmp_path / "results.db"
    with closing(SqliteResults(path)) as results:
        store(results, *(recorded(number, segment(number, number + 1)) for number in range(6)))
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE segment SET {change} WHERE position = 4")  # of this test
        db.commit()
    with (
        closing(SqliteResults(path)) as results,
        pytest.raises(Damaged, match=f"segment 4 of job {JOB}"),
    ):
        results.segments(JOB, 0, ENOUGH)
    assert (tmp_path / "results.distrusted").exists()


def test_a_changed_spec_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with closing(SqliteResults(path)) as results:
        store(results, JobAdded(JOB, SPEC))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE job SET spec = x'00'")
        db.commit()
    with (
        closing(SqliteResults(path)) as results,
        pytest.raises(Damaged, match=f"spec of job {JOB}"),
    ):
        results.spec(JOB)


def test_a_retry_of_scattered_tasks_reads_only_the_segments_of_these(tmp_path: Path) -> None:
    """Counted in rows, not in time."""
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        one = chunks.pack([b"v"])
        store(results, *(recorded(n, Segment(n, n + 1, Cause.EXIT, one)) for n in range(2_000)))
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        results._db.set_progress_handler(count, 100)
        store(results, reopened(*range(0, 2_000, 2), position=2_000))
        assert len(all_tasks(results)) == 1_000
        assert steps < 5_000  # of 100 instructions; a scan for each task takes 50,000

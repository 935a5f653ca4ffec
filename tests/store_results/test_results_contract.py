"""What the port `Results` promises, asked of the adapter over SQLite and of its simulated twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2psched.model import chunks, items
from p2psched.model.commands import (
    Event,
    Granted,
    JobAdded,
    JobEnded,
    PeerCameUp,
    PeerInfo,
    PeerWentDown,
    Recorded,
    ResultRefused,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.errors import ProtocolError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.results import Results
from p2psched.store.results import SqliteResults
from p2psched.testing.sim_results import MemoryResults

JOB = JobId("a" * 32)
OTHER = JobId("b" * 32)
PEER = PeerId("c" * 32)
ENOUGH = 1_000_000


@pytest.fixture(
    params=[SqliteResults, lambda _: MemoryResults()],
    ids=["sqlite", "memory"],
)
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Results]:
    make: Callable[[Path], Results] = request.param
    made = make(tmp_path / "results.db")
    yield made
    made.close()


def segment(start: int, stop: int, cause: Cause = Cause.OK) -> Segment:
    values = [items.pack_value(b"value %d" % index) for index in range(start, stop)]
    return Segment(start, stop, cause, chunks.pack(values), busy_us=7)


def recorded(position: int, what: Segment, job: JobId = JOB) -> Recorded:
    return Recorded(job, 5, PEER, position, what)


def stamped(index: int, event: Event) -> Stamped:
    return Stamped(index, at_ms=10 * index, wall_ms=1_700_000_000_000 + index, event=event)


def test_an_empty_store_has_applied_nothing_and_knows_nothing(results: Results) -> None:
    assert results.applied_index == 0
    assert results.segments(JOB, 0, ENOUGH).segments == []
    assert results.item(JOB, 0) is None
    assert results.history(JOB, 0, 10) == []


def test_the_applied_index_rises_with_each_store_also_without_events(results: Results) -> None:
    results.store([stamped(1, JobAdded(JOB))], 3)
    assert results.applied_index == 3
    results.store([], 4)
    assert results.applied_index == 4


def test_an_entry_handed_over_twice_is_our_own_fault(results: Results) -> None:
    results.store([], 2)
    with pytest.raises(AssertionError, match="twice"):
        results.store([], 2)


def test_segments_come_back_whole_and_in_commit_order_whatever_their_range(
    results: Results,
) -> None:
    made = [segment(50, 60), segment(0, 10, Cause.EXCEPTION), segment(20, 21)]
    results.store([stamped(i + 1, recorded(i, one)) for i, one in enumerate(made)], 1)
    assert results.segments(JOB, 0, ENOUGH).segments == made
    assert results.segments(JOB, 2, ENOUGH).segments == made[2:]
    assert results.segments(JOB, 3, ENOUGH).segments == []


def test_segments_of_jobs_are_kept_apart(results: Results) -> None:
    mine, other = segment(0, 5), segment(0, 9)
    results.store([stamped(1, recorded(0, mine)), stamped(2, recorded(0, other, OTHER))], 1)
    assert results.segments(JOB, 0, ENOUGH).segments == [mine]
    assert results.segments(OTHER, 0, ENOUGH).segments == [other]


def test_a_page_of_segments_fits_the_bytes_asked_for(results: Results) -> None:
    made = [Segment(i, i + 1, Cause.OK, chunks.pack([bytes(1000)])) for i in range(20)]
    results.store([stamped(i + 1, recorded(i, one)) for i, one in enumerate(made)], 1)
    page = results.segments(JOB, 4, 5000)
    count = len(page.segments)
    assert 2 <= count <= 4
    assert page.segments == made[4 : 4 + count]
    assert page.positions == list(range(4, 4 + count))
    assert page.next_position == 4 + count


def test_a_page_of_segments_without_data_is_bounded_too(results: Results) -> None:
    made = [Segment(i, i + 1, Cause.CANCELLED, b"") for i in range(200)]
    results.store([stamped(i + 1, recorded(i, one)) for i, one in enumerate(made)], 1)
    assert len(results.segments(JOB, 0, 1000).segments) < 100


def test_one_segment_comes_back_even_if_it_is_larger_than_asked(results: Results) -> None:
    results.store([stamped(1, recorded(0, segment(0, 9))), stamped(2, JobAdded(OTHER))], 1)
    assert results.segments(JOB, 0, 1).segments == [segment(0, 9)]


@pytest.mark.parametrize("index", [10, 14, 19])
def test_an_item_is_found_by_the_index_of_its_task(results: Results, index: int) -> None:
    made = [segment(20, 25), segment(10, 20, Cause.EXCEPTION), segment(0, 5)]
    results.store([stamped(i + 1, recorded(i, one)) for i, one in enumerate(made)], 1)
    found = results.item(JOB, index)
    assert found is not None
    assert found[0] == Segment(10, 20, Cause.EXCEPTION, b"", busy_us=7)
    assert found[1] == items.pack_value(b"value %d" % index)


@pytest.mark.parametrize("index", [0, 9, 20, 29, 31])
def test_a_task_without_a_final_result_has_no_item(results: Results, index: int) -> None:
    results.store(
        [stamped(1, recorded(0, segment(10, 20))), stamped(2, recorded(1, segment(30, 31)))], 1
    )
    assert results.item(JOB, index) is None
    assert results.item(OTHER, 15) is None


def test_the_item_of_a_segment_without_data_is_empty(results: Results) -> None:
    cancelled = Segment(0, 3, Cause.CANCELLED, b"")
    results.store([stamped(1, recorded(0, cancelled))], 1)
    assert results.item(JOB, 1) == (cancelled, b"")


def test_a_committed_segment_that_is_no_chunk_names_its_task(results: Results) -> None:
    results.store([stamped(1, recorded(0, Segment(0, 3, Cause.OK, b"nonsense")))], 1)
    with pytest.raises(ProtocolError, match=f"task 1 of job {JOB}"):
        results.item(JOB, 1)


def test_history_keeps_every_event_of_a_job_but_not_the_data(results: Results) -> None:
    tasks = TaskSet.of(0, 4)
    events: list[Event] = [
        JobAdded(JOB),
        Granted(JOB, 2, PEER, 1, tasks),
        Retried(JOB, 2, PEER, segment(0, 1, Cause.EXIT)),
        Revoked(JOB, 2, PEER, tasks, Cause.PEER_LOST),
        recorded(0, segment(0, 4)),
        ResultRefused(JOB, 2, tasks),
        JobEnded(JOB, JobState.SUCCEEDED),
    ]
    given = [stamped(i + 1, event) for i, event in enumerate(events)]
    results.store(given, 1)
    found = results.history(JOB, 0, 100)
    for at in (0, 1, 3, 5, 6):
        assert found[at] == given[at]
    assert found[2] == stamped(3, Retried(JOB, 2, PEER, Segment(0, 1, Cause.EXIT, b"", 7)))
    assert found[4] == stamped(5, recorded(0, Segment(0, 4, Cause.OK, b"", 7)))
    assert len(found) == len(given)


def test_what_happens_to_peers_stands_in_the_history_of_no_job(results: Results) -> None:
    info = PeerInfo(PEER, 1, "one", "127.0.0.1:1", 1, 2, "0.1", "3.11")
    given = [stamped(1, PeerCameUp(info)), stamped(2, PeerWentDown(PEER, 1, "silent"))]
    results.store([*given, stamped(3, JobAdded(JOB))], 1)
    assert results.history(JobId(""), 0, 10) == given
    assert results.history(JOB, 0, 10) == [stamped(3, JobAdded(JOB))]


def test_history_is_read_in_pages_from_a_command_on(results: Results) -> None:
    given = [stamped(i, Granted(JOB, i, PEER, 1, TaskSet.of(i, i + 1))) for i in range(1, 11)]
    results.store(given, 1)
    assert results.history(JOB, 0, 4) == given[:4]
    assert results.history(JOB, 4, 4) == given[4:8]
    assert results.history(JOB, 8, 4) == given[8:]
    assert results.history(JOB, 10, 4) == []


def test_a_page_of_history_never_ends_inside_a_command(results: Results) -> None:
    given = [stamped(1, JobAdded(JOB))]
    given += [stamped(2, Granted(JOB, 2, PEER, 1, TaskSet.of(i, i + 1))) for i in range(5)]
    given += [stamped(3, JobEnded(JOB, JobState.CANCELLED))]
    results.store(given, 1)
    assert results.history(JOB, 0, 2) == given[:6]
    assert results.history(JOB, 2, 2) == given[6:]

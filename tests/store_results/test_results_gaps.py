"""What a result store that missed entries says, and how it is made whole from another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from p2psched.model import chunks, items
from p2psched.model.commands import (
    Event,
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    PeerWentDown,
    Recorded,
    Stamped,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.results import Fill, Gap, GapResults, KnownJob
from p2psched.store.results_gaps import SqliteGapResults
from p2psched.testing.sim_results import MemoryResults

OLD, JOB, LATE = (JobId(letter * 32) for letter in "abc")
PEERS = JobId("")
PEER = PeerId("d" * 32)
SPEC = JobSpec("job", TaskSet.of(0, 100), ProgramWork(("true",)))
ENOUGH = 1_000_000
Make = Callable[[Path], GapResults]


@pytest.fixture(params=[SqliteGapResults, lambda _: MemoryResults()], ids=["sqlite", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], GapResults]]:
    made: list[GapResults] = []
    factory: Make = request.param

    def one() -> GapResults:
        made.append(factory(tmp_path / f"results-{len(made)}.db"))
        return made[-1]

    yield one
    for results in made:
        results.close()


def stamped(index: int, event: Event) -> Stamped:
    return Stamped(index, at_ms=10 * index, wall_ms=1_000 + index, event=event)


def recorded(job: JobId, position: int, start: int, stop: int) -> Recorded:
    values = [items.pack_value(b"%d" % index) for index in range(start, stop)]
    segment = Segment(start, stop, Cause.OK, chunks.pack(values), busy_us=7)
    return Recorded(job, 5, PEER, position, segment)


# By entry: a job that ends early; one that goes on all the time; a peer that goes.
HISTORY: list[list[Event]] = [
    [JobAdded(OLD, SPEC)],
    [recorded(OLD, 0, 0, 3), JobEnded(OLD, JobState.SUCCEEDED)],
    [JobAdded(JOB, SPEC), JobAdded(LATE, SPEC)],
    [recorded(JOB, 0, 0, 4)],
    [recorded(JOB, 1, 10, 12), PeerWentDown(PEER, 1, "gone")],
    [recorded(LATE, 0, 0, 1), JobEnded(LATE, JobState.SUCCEEDED)],
    [recorded(JOB, 2, 4, 6)],
    [recorded(JOB, 3, 6, 10)],
]
SKIPPED_TO = 6


def store(results: GapResults, first: int, last: int, history: Sequence[list[Event]]) -> None:
    for entry in range(first, last + 1):
        results.store([stamped(entry, event) for event in history[entry - 1]], entry)


def known() -> dict[JobId, KnownJob]:
    return {
        OLD: KnownJob(1, 1_002, None),
        JOB: KnownJob(2, None, SPEC),
        LATE: KnownJob(1, 1_006, None),
    }


def fill(to: GapResults, source: GapResults, job: JobId, gap: Gap) -> bool:
    """As a peer does, from another one's store."""
    if not to.begin_fill(job, gap):
        return False
    after = 0
    while events := source.history(job, after, 2):
        to.fill(job, gap, Fill(events=tuple(events), spec=source.spec(job)))
        after = events[-1].index
    position = 0
    while position < gap.positions:
        page = source.segments(job, position, 1)
        assert page.next_position > position
        to.fill(job, gap, Fill(page=page))
        position = page.next_position
    return to.end_fill(job, gap)


def seen(results: GapResults, job: JobId) -> object:
    page = results.segments(job, 0, ENOUGH)
    return (
        list(zip(page.positions, page.segments, strict=True)),
        page.next_position,
        results.history(job, 0, 1_000),
        results.spec(job),
        [results.item(job, index) for index in range(15)],
    )


def skipped(make: Callable[[], GapResults]) -> tuple[GapResults, GapResults]:
    """One that has everything, and one that missed entries 4 to 6."""
    whole, other = make(), make()
    store(whole, 1, 8, HISTORY)
    store(other, 1, 3, HISTORY)
    other.jump(SKIPPED_TO, known(), SKIPPED_TO)
    return whole, other


def test_a_store_that_was_made_whole_is_as_one_that_missed_nothing(
    make: Callable[[], GapResults],
) -> None:
    whole, other = skipped(make)
    assert other.applied_index == SKIPPED_TO
    store(other, 7, 8, HISTORY)
    for job, gap in other.gaps().items():
        assert fill(other, whole, job, gap)
    assert other.gaps() == {}
    for job in (OLD, JOB, LATE, PEERS):
        assert seen(other, job) == seen(whole, job)


def test_what_comes_while_a_gap_is_filled_stands_behind_it(make: Callable[[], GapResults]) -> None:
    whole, other = skipped(make)
    gap = other.gaps()[JOB]
    assert gap == Gap(SKIPPED_TO, 2)
    assert other.begin_fill(JOB, gap)
    other.fill(JOB, gap, Fill(events=tuple(whole.history(JOB, 0, 1_000)), spec=SPEC))
    store(other, 7, 7, HISTORY)
    other.fill(JOB, gap, Fill(page=whole.segments(JOB, 0, ENOUGH)))  # says more than the gap
    store(other, 8, 8, HISTORY)
    assert other.end_fill(JOB, gap)
    assert seen(other, JOB) == seen(whole, JOB)


def test_a_fill_that_was_broken_off_begins_anew(make: Callable[[], GapResults]) -> None:
    whole, other = skipped(make)
    gap = other.gaps()[JOB]
    assert other.begin_fill(JOB, gap)
    other.fill(JOB, gap, Fill(events=tuple(whole.history(JOB, 0, 1_000))))
    other.fill(JOB, gap, Fill(page=whole.segments(JOB, 0, 1)))
    store(other, 7, 8, HISTORY)
    assert fill(other, whole, JOB, gap)
    assert seen(other, JOB) == seen(whole, JOB)


def test_tasks_that_run_again_meanwhile_are_not_brought_back(
    make: Callable[[], GapResults],
) -> None:
    """Whoever is asked may not have heard of it yet."""
    whole, other = skipped(make)
    reopened = JobReopened(JOB, TaskSet.of(1, 11), 2)
    gap = other.gaps()[JOB]
    other.store([stamped(7, reopened)], 7)
    assert fill(other, whole, JOB, gap)
    reference = make()
    store(reference, 1, SKIPPED_TO, HISTORY)
    reference.store([stamped(7, reopened)], 7)
    page, expected = (r.segments(JOB, 0, ENOUGH) for r in (other, reference))
    assert (page.segments, page.positions) == (expected.segments, expected.positions)
    assert [other.item(JOB, 5), other.item(JOB, 10)] == [None, None]
    assert other.item(JOB, 11) == reference.item(JOB, 11)


def test_a_job_that_is_forgotten_meanwhile_is_not_brought_back(
    make: Callable[[], GapResults],
) -> None:
    whole, other = skipped(make)
    gap = other.gaps()[LATE]
    assert other.begin_fill(LATE, gap)
    other.store([stamped(7, JobForgotten(LATE))], 7)
    assert not other.fill(LATE, gap, Fill(events=tuple(whole.history(LATE, 0, 10)), spec=SPEC))
    assert not other.end_fill(LATE, gap)
    assert LATE not in other.gaps()
    assert (other.spec(LATE), other.segments(LATE, 0, ENOUGH).segments) == (None, [])


def test_a_second_gap_takes_the_place_of_the_first(make: Callable[[], GapResults]) -> None:
    whole, other = skipped(make)
    first = other.gaps()[JOB]
    assert other.begin_fill(JOB, first)
    other.jump(8, {JOB: KnownJob(4, None, SPEC)}, 8)
    assert not other.fill(JOB, first, Fill(events=tuple(whole.history(JOB, 0, 10))))
    assert fill(other, whole, JOB, other.gaps()[JOB])
    assert seen(other, JOB) == seen(whole, JOB)
    assert other.segments(OLD, 0, ENOUGH).segments == []  # forgotten in what was skipped


def test_a_job_that_ended_before_the_gap_and_is_all_here_is_left_alone(tmp_path: Path) -> None:
    results = SqliteGapResults(tmp_path / "results.db")
    store(results, 1, 3, HISTORY)
    results.jump(SKIPPED_TO, known(), SKIPPED_TO)
    assert set(results.gaps()) == {JOB, LATE, PEERS}
    assert results.item(OLD, 2) is not None
    results.close()
    again = SqliteGapResults(tmp_path / "results.db")  # gaps outlive the process
    assert set(again.gaps()) == {JOB, LATE, PEERS}
    again.close()


def test_after_a_checkpoint_nothing_waits_in_the_write_ahead_log(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    results = SqliteGapResults(path)
    store(results, 1, 8, HISTORY)
    assert path.with_name("results.db-wal").stat().st_size > 0
    results.checkpoint(20)
    assert path.with_name("results.db-wal").stat().st_size == 0
    assert results.applied_index == 20
    results.checkpoint(20)
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    other = SqliteGapResults(copy)
    assert (other.applied_index, seen(other, JOB)) == (20, seen(results, JOB))
    for made in (results, other):
        made.close()

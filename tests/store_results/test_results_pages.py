"""Small jobs, which share pages: nobody can tell by what is read."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from p2psched.model import chunks, items
from p2psched.model.commands import (
    Event,
    Granted,
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    Recorded,
    Retried,
)
from p2psched.model.errors import Damaged, Unavailable
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, FunctionWork, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.results import Fill, Gap, GapResults, KnownJob
from p2psched.store.results_gaps import SqliteGapResults
from p2psched.store.results_pages import PAGE_BYTES_MAX, PAGE_EVENTS_MAX, PLACES_MAX, SMALL_BYTES
from p2psched.testing.sim_results import MemoryResults
from tests.store_results.test_results_contract import ENOUGH, PEER, stamped

ONE = TaskSet.of(0, 1)


def job(number: int) -> JobId:
    return JobId(f"{number:032x}")


def spec(number: int, argument_bytes: int = 20) -> JobSpec:
    work = FunctionWork("m:f", b"", (bytes(argument_bytes),), 1, "3.11")
    return JobSpec(f"job {number}", ONE, work)


def ended(number: int, cause: Cause = Cause.OK, size: int = 10) -> Segment:
    value = items.pack_value(b"%d" % number + bytes(size))
    return Segment(0, 1, cause, chunks.pack([value]), busy_us=number)


def life(number: int, size: int = 10, at: int = 1) -> list[Event]:
    name = job(number)
    return [
        JobAdded(name, spec(number)),
        Granted(name, at, PEER, 1, ONE),
        Recorded(name, at, PEER, 0, ended(number, size=size)),
        JobEnded(name, JobState.SUCCEEDED),
    ]


class Both:
    """The same events in the file and in its twin in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = SqliteGapResults(path)
        self.memory = MemoryResults()
        self.index = self.entry = 0

    def store(self, *events: Event) -> None:
        given = [stamped(self.index + place, event) for place, event in enumerate(events, start=1)]
        self.index += len(events)
        self.entry += 1
        for results in (self.disk, self.memory):
            results.store(given, self.entry)

    def restart(self) -> None:
        self.disk.close()
        self.disk = SqliteGapResults(self.path)

    def compare(self, *numbers: int) -> None:
        for number in numbers:
            assert seen(self.disk, number) == seen(self.memory, number)

    def pages(self) -> list[tuple[int, bytes]]:
        """What is in the file: number and events of each."""
        return self.disk._db.execute("SELECT number, events FROM page ORDER BY number").fetchall()


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path / "results.db")


def seen(results: GapResults, number: int) -> object:
    name = job(number)
    page = results.segments(name, 0, ENOUGH)
    return (
        page.next_position,
        page.positions,
        page.segments,
        results.segments(name, 1, ENOUGH).segments,
        results.history(name, 0, 1_000),
        results.history(name, 3, 2),
        results.spec(name),
        results.item(name, 0),
        results.item(name, 1),
    )


def test_a_small_job_takes_no_row_of_its_own(both: Both) -> None:
    both.store(*(event for number in range(20) for event in life(number)))
    both.compare(*range(20))
    assert len(both.pages()) == 1
    for table in ("job", "segment", "history"):
        (count,) = both.disk._db.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert count == 0
    both.restart()
    both.compare(*range(21))


@pytest.mark.parametrize(
    "large", [spec(7, SMALL_BYTES + 1), JobSpec("wide", TaskSet.of(0, 2), ProgramWork(("true",)))]
)
def test_a_job_that_is_not_small_has_its_own_rows(both: Both, large: JobSpec) -> None:
    both.store(JobAdded(job(7), large), *life(8))
    assert both.disk._db.execute("SELECT id FROM job").fetchall() == [(job(7),)]
    both.compare(7, 8)


@pytest.mark.parametrize("seed", range(12))
def test_any_stories_read_as_from_single_events(both: Both, seed: int) -> None:
    rng = random.Random(seed)
    stories: dict[int, list[Event]] = {}
    begun = 0
    for _ in range(40):
        events: list[Event] = []
        for _ in range(rng.randrange(60)):
            if not stories or rng.random() < 0.25:
                stories[begun] = _any_story(begun, rng)
                begun += 1
            number = rng.choice(list(stories))
            events.append(stories[number].pop(0))
            if not stories[number]:
                del stories[number]
        both.store(*events)
        if rng.random() < 0.2:
            both.restart()
        both.compare(*(rng.randrange(begun + 1) for _ in range(5)))
    both.compare(*range(begun))


def _any_story(number: int, rng: random.Random) -> list[Event]:
    name = job(number)
    added, granted, recorded, end = life(number, size=rng.choice([10, 3_000]))
    retried = Retried(name, 1, PEER, ended(number, Cause.EXIT))
    story: list[Event] = [added, granted]
    story += [event for _ in range(rng.choice([0, 0, 0, 1, 12])) for event in (retried, granted)]
    story += [recorded, end]
    if rng.random() < 0.2:
        again = Recorded(name, 9, PEER, 1, ended(number + 1_000))
        story += [JobReopened(name, ONE, 1), granted, again, end]
    if rng.random() < 0.5:
        story.append(JobForgotten(name))
    return story


def test_much_is_cut_into_pages(both: Both) -> None:
    count = PAGE_EVENTS_MAX
    both.store(*(event for number in range(count) for event in life(number)))
    assert len(both.pages()) == 4
    size = PAGE_BYTES_MAX // 3
    both.store(*(event for number in range(count, count + 6) for event in life(number, size)))
    assert all(len(events) <= PAGE_BYTES_MAX for _, events in both.pages())
    both.store(*life(count + 6, 2 * PAGE_BYTES_MAX))
    both.compare(*range(0, count, 50), *range(count, count + 7))


def test_a_long_story_moves_into_rows_of_its_own(both: Both) -> None:
    added, granted, recorded, end = life(1)
    both.store(added, *life(2))
    for _ in range(PLACES_MAX):
        both.store(granted, Retried(job(1), 1, PEER, ended(1, Cause.EXIT)))
    assert job(1) not in both.disk._pages
    both.store(granted, recorded, end)
    both.compare(1, 2)
    both.restart()
    both.compare(1, 2)


def test_what_is_forgotten_is_in_no_page(both: Both) -> None:
    both.store(*life(1), *life(2), *life(3))
    both.store(JobForgotten(job(2)))
    ((_, events),) = both.pages()
    assert job(2).encode() not in events
    assert job(1).encode() in events
    both.restart()
    both.compare(1, 2, 3)
    both.store(JobForgotten(job(1)), *life(4), JobForgotten(job(3)))
    ((_, events),) = both.pages()
    assert job(4).encode() in events
    both.store(JobForgotten(job(4)))
    assert both.pages() == []
    both.compare(1, 2, 3, 4)


def test_an_id_that_is_used_anew_within_one_store_has_nothing_of_the_job_before(both: Both) -> None:
    both.store(*life(1), JobForgotten(job(1)), *life(1, at=20))
    both.compare(1)
    both.store(JobForgotten(job(1)), *life(1, at=30))
    both.compare(1)
    both.restart()
    both.compare(1)


def test_what_found_no_space_is_stored_when_it_is_tried_again(both: Both) -> None:
    both.store(*life(1), *life(2))
    (pages,) = both.disk._db.execute("PRAGMA page_count").fetchone()
    both.disk._db.execute(f"PRAGMA max_page_count = {pages}")
    more = [JobForgotten(job(2)), *life(3, 9_000), *life(4, 9_000)]
    given = [stamped(100 + place, event) for place, event in enumerate(more)]
    with pytest.raises(Unavailable, match="free some space"):
        both.disk.store(given, 5)
    both.compare(1, 2, 3)
    both.disk._db.execute(f"PRAGMA max_page_count = {pages + 1_000}")
    both.disk.store(given, 5)
    both.memory.store(given, 5)
    both.compare(1, 2, 3, 4)


def spoil(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE page SET {change}")
        db.commit()


@pytest.mark.parametrize("change", ["events = x'00'", "events = 7", "crc = crc + 1"])
def test_a_damaged_page_is_never_read(both: Both, change: str) -> None:
    both.store(*life(1))
    both.disk.close()
    spoil(both.path, change)
    with closing(SqliteGapResults(both.path)) as results, pytest.raises(Damaged, match="page 1 "):
        results.segments(job(1), 0, ENOUGH)
    assert both.path.with_name("results.distrusted").exists()


@pytest.mark.parametrize("change", ["ids = x'90'", "ids = 7", "number = number + 1"])
def test_a_file_with_a_damaged_list_of_jobs_is_set_aside(both: Both, change: str) -> None:
    both.store(*life(1))
    both.disk.close()
    spoil(both.path, change)
    with closing(SqliteGapResults(both.path)) as results:
        assert results.applied_index == 0
    assert both.path.with_name("results.damaged-1").exists()


def test_who_takes_a_snapshot_keeps_the_small_jobs_that_are_whole(both: Both) -> None:
    both.store(*life(1), *life(2)[:3], *life(3), *life(4))
    whole = both.index + 1_700_000_000_000
    known = {
        job(1): KnownJob(1, 4 + 1_700_000_000_000, None),
        job(2): KnownJob(1, None, spec(2)),
        job(4): KnownJob(1, whole, None),
    }
    for results in (both.disk, both.memory):
        results.jump(50, known, 900)
    assert both.disk.gaps() == {job(2): Gap(900, 1), JobId(""): Gap(900, 0)}
    both.entry = 50
    both.compare(1, 3, 4)  # the third was forgotten meanwhile
    gap = Gap(900, 1)
    assert both.disk.begin_fill(job(2), gap)
    events = tuple(both.memory.history(job(2), 0, 10))
    page = both.memory.segments(job(2), 0, ENOUGH)
    assert both.disk.fill(job(2), gap, Fill(events, spec(2), page, {0: (1, PEER)}))
    assert both.disk.end_fill(job(2), gap)
    both.index = 900
    both.store(JobEnded(job(2), JobState.SUCCEEDED))
    both.compare(1, 2, 3, 4)
    both.restart()
    both.compare(1, 2, 3, 4)

"""Jobs by number: what is found by id however it is found, and what a job costs in pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from p2psched.model.commands import Event, Granted, JobAdded, JobEnded, JobForgotten
from p2psched.model.errors import Damaged, Unavailable
from p2psched.model.ids import JobId
from p2psched.model.job import JobState
from p2psched.model.taskset import TaskSet
from p2psched.store.results import SqliteResults
from p2psched.store.results_jobs import INDEX_EVERY
from tests.store_results.test_results_contract import ENOUGH, PEER, recorded, segment
from tests.store_results.test_results_kept import SPEC, store

# Enough to have come into the index, and some that wait for it.
COUNT = INDEX_EVERY + INDEX_EVERY // 2


def job(number: int) -> JobId:
    """In no order, as ids are."""
    return JobId(f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}")


def life(of: JobId) -> list[Event]:
    return [
        JobAdded(of, SPEC),
        Granted(of, 2, PEER, 1, TaskSet.of(0, 1)),
        recorded(0, segment(0, 1), of),
        JobEnded(of, JobState.SUCCEEDED),
    ]


def store_jobs(results: SqliteResults, first: int, last: int, each: int = 50) -> None:
    for start in range(first, last, each):
        stop = min(start + each, last)
        store(results, *(event for number in range(start, stop) for event in life(job(number))))


def assert_there(results: SqliteResults, number: int) -> None:
    assert results.spec(job(number)) == SPEC
    assert results.segments(job(number), 0, ENOUGH).segments == [segment(0, 1)]
    assert len(results.history(job(number), 0, 100)) == 4


def assert_gone(results: SqliteResults, number: int) -> None:
    assert results.spec(job(number)) is None
    assert results.segments(job(number), 0, ENOUGH).segments == []
    assert results.history(job(number), 0, 100) == []


PICKED = [0, 1, 1_000, INDEX_EVERY - 1, INDEX_EVERY, COUNT - 1]


def test_each_job_is_found_whether_its_id_is_in_the_index_or_waits(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with closing(SqliteResults(path)) as results:
        store_jobs(results, 0, COUNT)
        for number in PICKED:
            assert_there(results, number)
        assert_gone(results, COUNT)
    with closing(sqlite3.connect(path)) as db:
        (indexed,) = db.execute("SELECT count(*) FROM job_number").fetchone()
        assert INDEX_EVERY <= indexed < COUNT
    with closing(SqliteResults(path)) as again:
        for number in PICKED:
            assert_there(again, number)


def test_a_job_is_forgotten_whether_its_id_is_in_the_index_or_waits(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with closing(SqliteResults(path)) as results:
        store_jobs(results, 0, COUNT)
        store(results, *(JobForgotten(job(number)) for number in PICKED))
        for number in PICKED:
            assert_gone(results, number)
    with closing(SqliteResults(path)) as results:
        for number in PICKED:
            assert_gone(results, number)
        assert_there(results, 2)
        # Much later their ids are free again; nothing of their first life comes back.
        store(results, *(JobAdded(job(number)) for number in PICKED))
        for number in PICKED:
            assert len(results.history(job(number), 0, 100)) == 1
            assert results.segments(job(number), 0, ENOUGH).segments == []
    with closing(sqlite3.connect(path)) as db:
        for table, column in (("segment", "job"), ("history", "job"), ("job_number", "number")):
            left = f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT number FROM job)"
            assert db.execute(left).fetchone() == (0,)


def test_numbers_of_forgotten_jobs_are_not_mixed_up_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with closing(SqliteResults(path)) as results:
        store_jobs(results, 0, INDEX_EVERY)
        store(results, *(JobForgotten(job(number)) for number in range(INDEX_EVERY)))
    with closing(SqliteResults(path)) as results:
        store_jobs(results, INDEX_EVERY, INDEX_EVERY + 10)
    with closing(SqliteResults(path)) as results:
        for number in range(INDEX_EVERY, INDEX_EVERY + 10):
            assert_there(results, number)


def test_a_job_that_could_not_be_stored_is_stored_when_it_is_tried_again(tmp_path: Path) -> None:
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        store_jobs(results, 0, 10)
        (pages,) = results._db.execute("PRAGMA page_count").fetchone()
        results._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(Unavailable, match="free some space"):
            store_jobs(results, 10, COUNT, each=COUNT)  # which brings the index about, too
        assert_gone(results, 10)
        results._db.execute(f"PRAGMA max_page_count = {pages + 10_000}")
        store_jobs(results, 10, COUNT, each=COUNT)
        for number in PICKED:
            assert_there(results, number)


@pytest.mark.parametrize(
    "read",
    [
        lambda results: results.spec(job(3)),
        lambda results: results.item(job(3), 0),
        lambda results: results.segments(job(3), 0, ENOUGH),
        lambda results: results.history(job(3), 0, 10),
    ],
)
def test_what_a_wrong_number_leads_to_is_never_shown(
    tmp_path: Path, read: Callable[[SqliteResults], object]
) -> None:
    path = tmp_path / "results.db"
    with closing(SqliteResults(path)) as results:
        store_jobs(results, 0, INDEX_EVERY)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE job_number SET number = number + 1 WHERE id = ?", (job(3),))
        db.commit()
    with closing(SqliteResults(path)) as results, pytest.raises(Damaged, match=job(3)):
        read(results)


def test_a_job_of_one_task_costs_less_than_one_page(tmp_path: Path) -> None:
    """Counted in pages that are written, not in time. Keyed by random ids it cost six."""
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        results._db.execute("PRAGMA wal_autocheckpoint = 0")
        store_jobs(results, 0, COUNT)
        _, pages, _ = results._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert pages < 0.6 * COUNT

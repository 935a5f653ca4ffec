"""What the result store takes on the disk: bounded by what is kept, whatever was ever stored."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from p2psched.model import chunks, items
from p2psched.model.commands import Event, JobForgotten, PeerWentDown, Recorded
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, Segment
from p2psched.model.limits import MIB
from p2psched.store.results import PEER_EVENTS_MAX, PRUNE_EVERY, SqliteResults
from p2psched.store.results_file import FREE_BYTES_MAX, GIVEN_BACK_BYTES
from tests.store_results.test_results_contract import PEER, stamped

SEGMENT: Final = 64 * 1024
SEGMENTS: Final = 32  # of a job: 2 MiB
JOB_BYTES: Final = SEGMENT * SEGMENTS
# SQLite begins to write its log back after 1,000 pages, at the end of a transaction.
WAL_BYTES_MAX: Final = 12 * MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def job(number: int) -> JobId:
    return JobId(f"{number:032x}")


def results_of(number: int) -> list[Event]:
    data = chunks.pack([items.pack_value(number.to_bytes(8) * (SEGMENT // 8))])
    return [
        Recorded(job(number), 1, PEER, place, Segment(place, place + 1, Cause.OK, data))
        for place in range(SEGMENTS)
    ]


def store(results: SqliteResults, *events: Event) -> None:
    first = results.applied_index * 1000 + 1
    given = [stamped(first + place, event) for place, event in enumerate(events)]
    results.store(given, results.applied_index + 1)


def sizes(path: Path) -> tuple[int, int]:
    """Of the file, and of its log."""
    return path.stat().st_size, path.with_name(path.name + "-wal").stat().st_size


def test_pages_of_forgotten_jobs_are_used_again(path: Path) -> None:
    results = SqliteResults(path)
    kept = 3
    largest = (0, 0)
    for number in range(40):
        store(results, *results_of(number))
        if number >= kept:
            store(results, JobForgotten(job(number - kept)))
        largest = max(largest[0], sizes(path)[0]), max(largest[1], sizes(path)[1])
    results.close()
    assert largest[0] <= (kept + 2) * JOB_BYTES + FREE_BYTES_MAX
    assert largest[1] <= WAL_BYTES_MAX


def test_after_a_peak_the_file_gets_small_again_and_what_is_kept_stays(path: Path) -> None:
    results = SqliteResults(path)
    count = 24
    for number in range(count):
        store(results, *results_of(number))
    peak = sizes(path)[0]
    store(results, *(JobForgotten(job(number)) for number in range(count - 1)))
    for _ in range(2 * peak // GIVEN_BACK_BYTES):
        store(results, PeerWentDown(PEER, 1, ""))  # time goes on
    results.checkpoint(results.applied_index)
    assert peak >= count * JOB_BYTES
    assert sizes(path)[0] <= 2 * JOB_BYTES + FREE_BYTES_MAX
    assert sizes(path)[1] == 0
    results.close()
    again = SqliteResults(path)  # which looks whether the file is sound
    page = again.segments(job(count - 1), 0, 2 * JOB_BYTES)
    assert [segment.data for segment in page.segments] == [
        event.segment.data for event in results_of(count - 1) if isinstance(event, Recorded)
    ]
    again.close()


def test_the_history_of_peers_takes_a_bounded_part_of_the_file(path: Path) -> None:
    results = SqliteResults(path)
    down = PeerWentDown(PEER, 1, "not heard for 2500 ms")
    per_store = 2 * PEER_EVENTS_MAX // PRUNE_EVERY
    stores = 2 * PRUNE_EVERY

    def run() -> int:
        for _ in range(stores):
            store(results, *[down] * per_store)
        results.checkpoint(results.applied_index)
        return sizes(path)[0]

    first, second = run(), run()
    results.close()
    assert second <= first * 1.1

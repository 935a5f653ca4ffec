"""A file that an older version wrote (`golden/results_v*.sql`) is read by today's code.

Whatever version wrote a file, the same events lie behind it: those of `fill`.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from p2psched.model import digests
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import (
    Event,
    Granted,
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    PeerWentDown,
    Retried,
    Stamped,
)
from p2psched.model.errors import Refused
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.results import Gap, GapResults, KnownJob
from p2psched.store import results_upgrade
from p2psched.store.results_gaps import SqliteGapResults
from p2psched.store.results_rows import HISTORY_ROW_EVENTS
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
from tests.store_results.test_results_kept import SPEC

GOLDEN = Path(__file__).parent / "golden"
GONE, LATE, PEERS = JobId("d" * 32), JobId("e" * 32), JobId("")


def _blobs(start: int, stop: int) -> Segment:
    blob = BlobRef(digests.digest_of(b"large"), 5)
    named = tuple(ResultBlob(index, "model", blob, (PEER,)) for index in range(start, stop))
    return msgspec.structs.replace(segment(start, stop), blobs=named)


ENTRIES: list[list[Event]] = [
    [JobAdded(JOB, SPEC), Granted(JOB, 1, PEER, 1, TaskSet.of(0, 40)), JobAdded(GONE, SPEC)],
    [recorded(0, segment(0, 9)), recorded(1, segment(12, 15, Cause.EXIT)),
     recorded(0, segment(0, 2), GONE)],
    [recorded(2, _blobs(20, 24)), Retried(JOB, 1, PEER, segment(9, 10, Cause.SIGNAL))],
    [JobReopened(JOB, TaskSet(((3, 5), (12, 15))), 3), PeerWentDown(PEER, 1, "silent")],
    [recorded(3, segment(12, 14)), JobForgotten(GONE), PeerWentDown(PEER, 2, "silent")],
    [JobAdded(OTHER),
     *(recorded(n, segment(n, n + 1), OTHER) for n in range(HISTORY_ROW_EVENTS + 3))],
    [JobEnded(OTHER, JobState.SUCCEEDED)],
]  # fmt: skip
SKIPPED_TO = len(ENTRIES) + 3


def fill(results: GapResults) -> None:
    index = 0
    for entry, events in enumerate(ENTRIES, start=1):
        given: list[Stamped] = []
        for event in events:
            index += 1
            given.append(stamped(index, event))
        results.store(given, entry)
    known = KnownJob(4, None, SPEC)
    results.jump(SKIPPED_TO, {JOB: known, OTHER: KnownJob(35, None, None), LATE: known}, 900)
    results.store([stamped(901, recorded(4, segment(3, 5)))], SKIPPED_TO + 1)


def older(path: Path, version: int = 3) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript((GOLDEN / f"results_v{version}.sql").read_text())
    return path


def seen(results: GapResults, job: JobId) -> object:
    page = results.segments(job, 0, ENOUGH)
    return (
        list(zip(page.positions, page.segments, strict=True)),
        page.next_position,
        results.history(job, 0, 1_000),
        results.spec(job),
        [results.item(job, index) for index in range(45)],
    )


@pytest.mark.parametrize("version", [3, 4])
def test_all_that_an_older_version_wrote_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: int
) -> None:
    path = older(tmp_path / "results.db", version)
    with caplog.at_level(logging.WARNING), closing(SqliteGapResults(path)) as results:
        reference = SqliteGapResults(tmp_path / "reference.db")
        fill(reference)
        assert results.applied_index == reference.applied_index == SKIPPED_TO + 1
        assert results.gaps() == {
            JOB: Gap(900, 4),
            OTHER: Gap(900, 35),
            LATE: Gap(900, 4),
            PEERS: Gap(900, 0),
        }
        for job in (JOB, OTHER, GONE, LATE, PEERS):
            assert seen(results, job) == seen(reference, job)
        reference.close()
    said = ["results-upgrade"] if version == 3 else []  # the tables of 4 are those of today
    assert [record.msg for record in caplog.records] == said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["reference.db", "results.db"]
    with closing(SqliteGapResults(path)) as results:  # of today's schema now
        assert results.segments(JOB, 0, ENOUGH).next_position == 5
    assert len(caplog.records) == len(said)


def test_what_comes_after_an_upgrade_goes_on_where_the_older_version_was(tmp_path: Path) -> None:
    memory = MemoryResults()
    with closing(SqliteGapResults(older(tmp_path / "results.db"))) as results:
        fill(memory)
        more: list[Event] = [
            recorded(5, segment(9, 12)),
            JobReopened(JOB, TaskSet.of(21, 22), 6),
            JobForgotten(OTHER),
            PeerWentDown(PEER, 3, "silent"),
        ]
        given = [stamped(902 + place, event) for place, event in enumerate(more)]
        for store in (results, memory):
            store.store(given, SKIPPED_TO + 2)
            assert store.end_fill(JOB, Gap(900, 4))
        for job in (JOB, OTHER, PEERS):
            assert results.history(job, 901, 100) == memory.history(job, 901, 100)
        for index in range(45):
            assert results.item(JOB, index) == memory.item(JOB, index)
            assert results.item(OTHER, index) is None


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE segment SET busy_us = busy_us + 1 WHERE position = 2",
        "UPDATE segment SET start = -1, stop = -1 WHERE position = 2",
        "UPDATE history SET wall_ms = 3 WHERE idx = 4",
        "UPDATE spec SET data = x'00'",
    ],
)
def test_a_damaged_older_file_is_set_aside_as_ever(tmp_path: Path, damage: str) -> None:
    path = older(tmp_path / "results.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    with closing(SqliteGapResults(path)) as results:
        assert (results.applied_index, results.gaps()) == (0, {})
    assert (tmp_path / "results.damaged-1").exists()


def test_an_upgrade_that_was_broken_off_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = older(tmp_path / "results.db")
    copy, jobs = results_upgrade._copy_job, 0

    def breaks(*given: object) -> None:
        nonlocal jobs
        jobs += 1
        if jobs > 1:
            raise OSError(28, "no space left on device")
        copy(*given)  # type: ignore[arg-type]  # what it was called with

    with monkeypatch.context() as patch:
        patch.setattr(results_upgrade, "_copy_job", breaks)
        with pytest.raises(Refused, match="no space left"):
            SqliteGapResults(path)
    assert jobs == 2
    (tmp_path / "results.db.new-wal").write_bytes(b"left over from a crash")
    with closing(SqliteGapResults(path)) as results, closing(MemoryResults()) as memory:
        fill(memory)
        assert results.history(PEERS, 0, 100) == memory.history(PEERS, 0, 100)
        assert len(results.segments(OTHER, 0, ENOUGH).segments) == HISTORY_ROW_EVENTS + 3
    assert not list(tmp_path.glob("*.new*"))

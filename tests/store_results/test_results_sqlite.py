"""The adapter over SQLite across restarts, crashes and damage."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from p2psched.model import chunks
from p2psched.model.commands import JobReopened, Recorded, Stamped
from p2psched.model.errors import Damaged, Refused, Unavailable
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import TaskSet
from p2psched.store.results import SqliteResults
from p2psched.store.results_file import DAMAGED_KEPT_MAX

JOB = JobId("a" * 32)
PEER = PeerId("c" * 32)
EVENTS = 50  # of one entry in the crash tests

# The n-th entry brings the segments (n-1)*EVENTS.. of one job. With DIE_AT the process ends itself
# in the middle of storing that entry: its segments are written, its history is not.
WRITER = """
import os, signal, sys
from pathlib import Path
from p2psched.model import chunks
from p2psched.model.commands import Recorded, Stamped
from p2psched.model.job import Cause, Segment
from p2psched.store.results import SqliteResults

path, events, die_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data = chunks.pack([bytes(2000)])

def on_statement(sql):
    if entry == die_at and sql.startswith("INSERT INTO history"):
        os.kill(os.getpid(), signal.SIGKILL)

def event(place):
    at = (entry - 1) * events + place
    segment = Segment(at, at + 1, Cause.OK, data)
    return Stamped(entry, 1, 1, Recorded("a" * 32, 1, "c" * 32, at, segment))

results = SqliteResults(path)
results._db.set_trace_callback(on_statement)
for entry in range(1, 100_000):
    results.store([event(place) for place in range(events)], entry)
    print(entry, flush=True)
"""


def recorded(position: int, data: bytes = b"") -> Stamped:
    segment = Segment(position, position + 1, Cause.OK, data or chunks.pack([b"v"]))
    return Stamped(position + 1, 1, 1, Recorded(JOB, 1, PEER, position, segment))


def store_entries(path: Path, count: int, data: bytes = b"") -> None:
    with closing(SqliteResults(path)) as results:
        for entry in range(1, count + 1):
            results.store([recorded(entry - 1, data)], entry)


def spoil(path: Path, sql: str) -> None:
    """Change the file behind the adapter's back, as a bad disk would."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql)
        db.commit()


def all_segments(results: SqliteResults) -> list[Segment]:
    found: list[Segment] = []
    page = results.segments(JOB, 0, 100_000)
    while page.segments:
        found += page.segments
        page = results.segments(JOB, page.next_position, 100_000)
    return found


def assert_whole_up_to_its_applied_index(path: Path) -> int:
    with closing(SqliteResults(path)) as results:
        entries = results.applied_index
        assert len(all_segments(results)) == entries * EVENTS
        assert len(results.history(JOB, 0, 10**9)) == entries * EVENTS
    return entries


def start_writer(path: Path, die_at: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(EVENTS), str(die_at)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store_entries(tmp_path / "results.db", 5)
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        assert results.applied_index == 5
        assert len(all_segments(results)) == 5
        results.store([recorded(5)], 6)
        assert len(all_segments(results)) == 6


def test_a_store_may_be_used_from_another_thread(tmp_path: Path) -> None:
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        thread = threading.Thread(target=results.store, args=([recorded(0)], 1))
        thread.start()
        thread.join()
        assert results.applied_index == len(all_segments(results)) == 1


@pytest.mark.process
@pytest.mark.parametrize("entries_before", [1, 7, 23])
def test_events_and_applied_index_survive_kill_together(
    tmp_path: Path, entries_before: int
) -> None:
    path = tmp_path / "results.db"
    with start_writer(path, die_at=0) as writer:
        assert writer.stdout is not None
        for _ in range(entries_before):
            last = int(writer.stdout.readline())
        writer.kill()
    assert last == entries_before
    assert assert_whole_up_to_its_applied_index(path) >= entries_before


@pytest.mark.smoke
@pytest.mark.process
def test_a_crash_in_the_middle_of_an_entry_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with start_writer(path, die_at=4) as writer:
        writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    assert assert_whole_up_to_its_applied_index(path) == 3


class _FailingEvents(Sequence[Stamped]):
    """Fails when some are written already, as an event that can't be encoded would."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: object) -> Stamped:  # type: ignore[override]  # never sliced
        raise RuntimeError("no such event")

    def __iter__(self) -> Iterator[Stamped]:
        yield recorded(0)
        yield Stamped(2, 1, 1, JobReopened(JOB, TaskSet.of(5, 6), 1))  # needs what was before
        raise RuntimeError("no such event")


def test_a_failure_in_the_middle_of_an_entry_leaves_nothing_of_it(tmp_path: Path) -> None:
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        statements: list[str] = []
        results._db.set_trace_callback(statements.append)
        with pytest.raises(RuntimeError, match="no such event"):
            results.store(_FailingEvents(), 1)
        assert any(sql.startswith("INSERT INTO segment") for sql in statements)
        assert (results.applied_index, all_segments(results)) == (0, [])
        results.store([recorded(0)], 1)
        assert len(all_segments(results)) == 1


@pytest.mark.parametrize(
    "change",
    [
        "data = x'00'",
        "data = 'text'",
        "start = 3",
        "cause = 'exit'",
        "busy_us = 9",
        "peer = 'd'",
        "crc = crc + 1",
    ],
)
def test_a_changed_segment_is_never_shown(tmp_path: Path, change: str) -> None:
    path = tmp_path / "results.db"
    store_entries(path, 6)
    spoil(path, f"UPDATE segment SET {change} WHERE position = 4")
    with closing(SqliteResults(path)) as results:
        assert len(results.segments(JOB, 0, 150).segments) < 5
        with pytest.raises(Damaged, match=f"segment 4 of job {JOB}"):
            all_segments(results)
        with pytest.raises(Damaged, match=f"segment 4 of job {JOB}"):
            results.item(JOB, 4)


def test_a_lost_segment_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    store_entries(path, 6)
    spoil(path, "DELETE FROM segment WHERE position = 4")
    with (
        closing(SqliteResults(path)) as results,
        pytest.raises(Damaged, match=f"segment 4 of job {JOB} is missing"),
    ):
        all_segments(results)


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ("events = x'90'", 4),
        ("events = 'text'", 4),
        ("last = 40", 40),
        ("place = 1", 4),
        ("crc = crc + 1", 4),
    ],
)
def test_changed_history_is_never_shown(tmp_path: Path, change: str, at: int) -> None:
    path = tmp_path / "results.db"
    store_entries(path, 6)
    spoil(path, f"UPDATE history SET {change} WHERE last = 4")
    with (
        closing(SqliteResults(path)) as results,
        pytest.raises(Damaged, match=f"history of job {JOB} fails its checksum at {at}"),
    ):
        results.history(JOB, 0, 10)


def test_after_damage_was_read_the_next_start_builds_anew(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    store_entries(path, 2)
    spoil(path, "UPDATE segment SET busy_us = 9")
    with closing(SqliteResults(path)) as results, pytest.raises(Damaged):
        results.item(JOB, 1)
    with closing(SqliteResults(path)) as results:
        assert results.applied_index == 0
        assert (tmp_path / "results.damaged-1").exists()
        results.store([recorded(0)], 1)
    with closing(SqliteResults(path)) as results:
        assert results.applied_index == 1


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all " * 500)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _hole_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(2 * 4096, len(data), 4096):
        data[page : page + 64] = bytes(64)
    path.write_bytes(data)


def _other_schema(path: Path) -> None:
    spoil(path, "PRAGMA user_version = 99")


def _lost_table(path: Path) -> None:
    spoil(path, "DROP TABLE history")


def _lost_index(path: Path) -> None:
    spoil(path, "DELETE FROM applied")


@pytest.mark.parametrize(
    "damage",
    [_garbage, _truncated, _hole_in_the_middle, _other_schema, _lost_table, _lost_index],
)
def test_an_unsound_file_is_set_aside_with_a_warning_and_started_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    path = tmp_path / "results.db"
    store_entries(path, 50, bytes(2000))
    assert callable(damage)
    damage(path)
    spoiled = path.read_bytes()
    with (
        caplog.at_level(logging.WARNING),
        closing(SqliteResults(path)) as results,
    ):
        assert (results.applied_index, all_segments(results)) == (0, [])
        results.store([recorded(0)], 1)
    assert [record.msg for record in caplog.records] == ["results-set-aside"]
    assert (tmp_path / "results.damaged-1").stat().st_size == len(spoiled)


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    for _ in range(DAMAGED_KEPT_MAX + 2):
        _garbage(path)
        SqliteResults(path).close()
    kept = sorted(entry.name for entry in tmp_path.glob("results.damaged-*"))
    assert kept == [f"results.damaged-{n}" for n in (3, 4, 5)]
    assert DAMAGED_KEPT_MAX == 3


def test_a_start_that_crashed_while_setting_aside_is_finished_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    store_entries(path, 3)
    path.rename(tmp_path / "results.damaged-1")
    (tmp_path / "results.distrusted").touch()
    with closing(SqliteResults(path)) as results:
        assert results.applied_index == 0
    with closing(SqliteResults(path)) as results:
        assert results.applied_index == 0
    assert not (tmp_path / "results.distrusted").exists()


def test_a_place_that_can_not_be_opened_is_refused_and_nothing_is_moved(tmp_path: Path) -> None:
    (tmp_path / "results.db").mkdir()
    with pytest.raises(Refused, match=r"can't open the results .*results\.db"):
        SqliteResults(tmp_path / "results.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.db"]


def test_a_second_process_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    store_entries(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Refused, match="locked"):
            SqliteResults(path)
    with closing(SqliteResults(path)) as results:
        assert results.applied_index == 1


def test_a_full_disk_keeps_nothing_and_the_same_call_may_be_repeated(tmp_path: Path) -> None:
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        results.store([recorded(0)], 1)
        (pages,) = results._db.execute("PRAGMA page_count").fetchone()
        results._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(Unavailable, match="free some space"):
            results.store([recorded(1, bytes(100_000))], 2)
        assert (results.applied_index, len(all_segments(results))) == (1, 1)
        results._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
        results.store([recorded(1, bytes(100_000))], 2)
        assert (results.applied_index, len(all_segments(results))) == (2, 2)
    assert not (tmp_path / "results.distrusted").exists()


def test_a_call_after_close_does_not_blame_the_file(tmp_path: Path) -> None:
    results = SqliteResults(tmp_path / "results.db")
    results.close()
    results.close()
    with pytest.raises(sqlite3.ProgrammingError):
        results.item(JOB, 0)
    assert not (tmp_path / "results.distrusted").exists()


def test_the_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        results.store([recorded(0)], 1)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()}
    assert modes == {"results.db": 0o600, "results.db-wal": 0o600}

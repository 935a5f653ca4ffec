"""Exports of a made-up job: every format, whole or not at all, and no pickle is opened."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pickle
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import msgpack
import msgspec
import pytest

from p2psched.client.export import Exported, export_job, export_to_stream
from p2psched.client.export_files import FORMATS
from p2psched.client.export_rows import FIELDS
from p2psched.model import chunks, digests, items, values
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import Granted, Recorded, Stamped
from p2psched.model.errors import ResultLost, Unavailable, UsageError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.messages import History, JobView, ResultPage
from p2psched.model.taskset import TaskSet

JOB: Final = JobId("ab" * 16)
PEER: Final = PeerId("cd" * 16)
PAGE: Final = 2  # segments


class Bomb:
    """Its pickle must stay closed."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return pytest.fail, ("an export opened a pickle",)


def value(what: object) -> bytes:
    return items.pack_value(msgpack.packb(what))


class FakeJob:
    """Pages of `PAGE` segments; each segment is a position of its own."""

    def __init__(self, segments: Sequence[Segment], *, tasks: int, cancelled: int = 0) -> None:
        self.id = JOB
        self.segments = segments
        self.fails_after = len(segments)
        self.gone: set[int] = set()  # sizes of blobs that nobody has
        self.view = JobView(
            job=JOB,
            name="fake",
            kind="function",
            state=JobState.CANCELLED if cancelled else JobState.SUCCEEDED,
            tasks=tasks,
            waiting=0,
            owned=0,
            succeeded=0,
            failed=0,
            cancelled=cancelled,
            segments=len(segments),
            attempts_lost=0,
            attempts_failed=0,
            results_refused=0,
            submitted_ms=0,
            ended_ms=0,
            submitter="",
            task_set=TaskSet.of(0, tasks),
        )

    async def show(self) -> JobView:
        return self.view

    async def pages(self, *, position: int = 0) -> AsyncIterator[ResultPage]:
        while True:
            if position >= self.fails_after:
                raise Unavailable("nobody answers")
            found = tuple(self.segments[position : position + PAGE])
            positions = tuple(range(position, position + len(found)))
            position += len(found)
            yield ResultPage(found, self.view, position, positions)

    async def download(self, ref: BlobRef, path: Path) -> None:
        if ref.size in self.gone:
            raise ResultLost("gone")
        await asyncio.to_thread(path.write_bytes, bytes(ref.size))

    async def history(self, *, after: int = 0, limit: int = 1000) -> History:
        """A grant before each result; three events a page."""
        events = []
        for position, segment in enumerate(self.segments):
            granted = Granted(JOB, position + 1, PEER, 1, segment.tasks)
            result = Recorded(JOB, position + 1, PEER, position, segment)
            events += [Stamped(10 * position + 1, 0, 0, granted)]
            events += [Stamped(10 * position + 2, 0, 2000 + position, result)]
        page = [event for event in events if event.index > after][:3]
        return History(tuple(page), more=bool(page))


def segment(start: int, *packed: bytes, cause: Cause = Cause.OK, busy_us: int = 100) -> Segment:
    return Segment(start, start + len(packed), cause, chunks.pack(packed), busy_us)


def a_job() -> FakeJob:
    """One task of every kind, not in order of index."""
    exception: items.Header = {
        "type": "ValueError",
        "message": "no \ud800",
        "traceback": "Traceback",
    }
    return FakeJob(
        [
            segment(3, value({"score": 0.5, "tags": ["ä", None]}), value("text")),
            segment(0, value([b"\0"]), value(float("nan")), value(b"\xff")),
            segment(5, items.pack_value(pickle.dumps(Bomb(), 5))),
            segment(6, items.pack({"exit": 0, "stdout_total": 9}, b"", b"a,\nb", b"\xff\x00")),
            segment(7, items.pack(exception, pickle.dumps(Bomb(), 5)), cause=Cause.EXCEPTION),
            segment(8, items.pack({"signal": 9}, b"", b"", b"oh"), cause=Cause.SIGNAL),
        ],
        tasks=11,
        cancelled=2,
    )


def export(job: FakeJob, path: Path, form: str | None = None, **options: bool) -> Exported:
    return asyncio.run(export_job(job, path, form=form, **options))


def stream(job: FakeJob, form: str) -> str:
    out = io.StringIO()
    asyncio.run(export_to_stream(job, out, form=form))
    return out.getvalue()


def by_index(job: FakeJob) -> dict[int, dict[str, object]]:
    rows = [json.loads(line) for line in stream(job, "jsonl").splitlines()]
    assert len({row["index"] for row in rows}) == len(rows)
    return {row["index"]: row for row in rows}


# --- what is in a row -----------------------------------------------------------------------------


def test_plain_values_stand_as_json_where_json_can_say_them() -> None:
    rows = by_index(a_job())
    assert rows[3]["value"] == {"score": 0.5, "tags": ["ä", None]}
    assert rows[4]["value"] == "text"
    assert {rows[n]["value_kind"] for n in (3, 4)} == {"json"}
    assert [rows[n]["value"] for n in (0, 1, 2)] == ["[b'\\x00']", "nan", "b'\\xff'"]
    assert {rows[n]["value_kind"] for n in (0, 1, 2)} == {"repr"}


def test_a_pickle_is_passed_on_and_never_opened() -> None:
    rows = by_index(a_job())
    assert rows[5]["value_kind"] == "packed"
    assert "value" not in rows[7]  # a pickled exception is no value


def test_a_value_that_can_not_be_read_is_passed_on_too() -> None:
    [row] = by_index(FakeJob([segment(0, items.pack_value(b"\xc7"))], tasks=1)).values()
    assert (row["value_kind"], row["value"]) == ("packed", "xw==")


def test_failures_programs_and_cancelled_tasks_say_how_they_ended() -> None:
    rows = by_index(a_job())
    told = {k: rows[7][k] for k in ("state", "cause", "error", "message", "traceback")}
    assert told == {
        "state": "failed",
        "cause": "exception",
        "error": "ValueError",
        "message": "no \\ud800",
        "traceback": "Traceback",
    }
    assert (rows[8]["signal"], rows[8]["stderr"]) == (9, "oh")
    assert (rows[6]["exit"], rows[6]["output_kind"], rows[6]["stdout"]) == (0, "base64", "YSwKYg==")
    assert (rows[6]["stdout_total"], rows[6]["stderr_total"]) == (9, 2)
    assert [rows[n]["state"] for n in (9, 10)] == ["cancelled", "cancelled"]


def test_every_row_says_who_brought_it_and_when() -> None:
    rows = by_index(a_job())
    found = {n: (row.get("grant"), row.get("committed_ms")) for n, row in rows.items()}
    assert {n: found[n] for n in (3, 0, 8)} == {3: (1, 2000), 0: (2, 2001), 8: (6, 2005)}
    assert found[9] == (None, None)
    assert rows[3]["peer"] == PEER
    assert [(rows[n]["busy_us"], rows[n]["together"]) for n in (3, 5)] == [(50, 2), (100, 1)]


def test_what_ends_after_the_export_began_is_not_in_it() -> None:
    job = a_job()
    job.view = msgspec.structs.replace(job.view, segments=1, cancelled=0)
    assert sorted(by_index(job)) == [3, 4]


# --- formats --------------------------------------------------------------------------------------


def test_csv_has_a_head_and_survives_commas_lines_and_quotes() -> None:
    rows = list(csv.DictReader(io.StringIO(stream(a_job(), "csv"), newline="")))
    assert list(rows[0]) == list(FIELDS)
    found = {row["index"]: row for row in rows}
    assert len(found) == 11
    assert json.loads(found["3"]["value"]) == {"score": 0.5, "tags": ["ä", None]}
    assert found["8"]["exit"] == ""


def test_sqlite_has_one_row_a_task_with_bytes_as_they_are(tmp_path: Path) -> None:
    done = export(a_job(), tmp_path / "run.sqlite")
    assert (done.rows, done.format) == (11, "sqlite")
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tasks = [row[0] for row in db.execute("SELECT task FROM results ORDER BY task")]
        [outputs] = db.execute("SELECT stdout, stderr, exit FROM results WHERE task = 6")
        [packed] = db.execute("SELECT packed FROM results WHERE task = 5")
        [granted] = db.execute('SELECT "grant", peer FROM results WHERE task = 8')
        [score] = db.execute("SELECT value ->> 'score' FROM results WHERE task = 3")
        plan = str(
            db.execute("EXPLAIN QUERY PLAN SELECT * FROM results WHERE state = ''").fetchall()
        )
    db.close()
    assert tasks == list(range(11))
    assert outputs == (b"a,\nb", b"\xff\x00", 0)
    assert packed == (pickle.dumps(Bomb(), 5),)
    assert granted == (6, PEER)
    assert score == (0.5,)
    assert "results_by_state" in plan


def test_a_folder_has_one_folder_a_task(tmp_path: Path) -> None:
    export(a_job(), tmp_path / "out")
    names = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert {"3/value.json", "0/value.txt", "5/value.packed", "export.json"} <= names
    assert (tmp_path / "out/6/stdout").read_bytes() == b"a,\nb"
    assert (tmp_path / "out/6/stderr").read_bytes() == b"\xff\x00"
    assert not (tmp_path / "out/3/stdout").exists()
    assert json.loads((tmp_path / "out/7/meta.json").read_text())["error"] == "ValueError"
    assert len(list((tmp_path / "out").glob("*/meta.json"))) == 11


def test_a_folder_gets_the_bytes_of_large_results_and_says_what_is_lost(tmp_path: Path) -> None:
    refs = [BlobRef(digests.digest_of(bytes(size)), size) for size in (70_000, 5, 9)]
    large = items.pack_value(values.pack_blob((refs[0].digest, refs[0].size)))
    found = tuple(
        ResultBlob(3, name, ref) for name, ref in zip(("", "out", "gone"), refs, strict=True)
    )
    job = FakeJob([Segment(3, 4, Cause.OK, chunks.pack([large]), 100, found)], tasks=4)
    job.gone = {9}
    done = export(job, tmp_path / "out")
    assert done.lost == 1
    folder = tmp_path / "out" / "3"
    assert (folder / "value.packed").read_bytes() == bytes(70_000)
    assert {p.name: p.read_bytes() for p in (folder / "files").iterdir()} == {
        "out": bytes(5),
        "gone.lost": b"",
    }
    (row,) = by_index(job).values()
    assert row["value"] == str(refs[0])
    assert row["blobs"] == [
        {"name": name, "digest": str(ref), "bytes": ref.size}
        for name, ref in zip(("", "out", "gone"), refs, strict=True)
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_a_job_without_results_is_an_empty_export(form: str, tmp_path: Path) -> None:
    done = export(FakeJob([], tasks=3), tmp_path / "out", form)
    assert done.rows == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- whole or not at all --------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_there_is_kept_unless_it_is_to_be_replaced(form: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    export(FakeJob([], tasks=1), target, form)
    with pytest.raises(UsageError, match="is there already"):
        export(a_job(), target, form)
    assert export(a_job(), target, form, overwrite=True).rows == 11
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_that_no_export_made_is_never_replaced(form: str, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    with pytest.raises(UsageError, match="no export made"):
        export(a_job(), tmp_path / "thesis", form, overwrite=True)
    assert (tmp_path / "thesis" / "chapter").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_no_file_takes_the_place_of_what_is_none(form: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        with pytest.raises(UsageError, match="is no plain file: choose another name"):
            export(a_job(), tmp_path / name, form, overwrite=True)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_that_fails_leaves_what_was_there_and_nothing_else(
    form: str, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    export(FakeJob([], tasks=1), target, form)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    job = a_job()
    job.fails_after = 4
    with pytest.raises(Unavailable):
        export(job, target, form, overwrite=True)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.jsonl", "jsonl"), ("a.csv", "csv"), ("a.db", "sqlite"), ("a.SQLITE", "sqlite")],
)
def test_the_suffix_says_the_format(name: str, form: str, tmp_path: Path) -> None:
    assert export(a_job(), tmp_path / name).format == form


def test_an_unknown_suffix_an_unknown_format_or_no_folder_is_refused(tmp_path: Path) -> None:
    for path, form, message in (
        (tmp_path / "a.xlsx", None, "does not say its format"),
        (tmp_path / "a", "xml", "is no format"),
        (tmp_path / "gone" / "a.csv", None, "there is no folder"),
    ):
        with pytest.raises(UsageError, match=message):
            export(a_job(), path, form)
    with pytest.raises(UsageError, match="is no stream"):
        stream(a_job(), "sqlite")


# --- many -----------------------------------------------------------------------------------------


class Many(FakeJob):
    """Results that are made as they are asked for."""

    def __init__(self, count: int) -> None:
        super().__init__([], tasks=count * 200)
        self.count = count
        self.view = msgspec.structs.replace(self.view, segments=count)

    async def pages(self, *, position: int = 0) -> AsyncIterator[ResultPage]:
        while True:
            made = segment(position * 200, *[value(f"{position} {n}") for n in range(200)])
            position += 1
            yield ResultPage((made,), self.view, position, (position - 1,))

    async def history(self, *, after: int = 0, limit: int = 1000) -> History:
        found = [
            Stamped(n + 1, 0, 0, Recorded(JOB, 1, PEER, n, Segment(n, n + 1, Cause.OK, b"")))
            for n in range(after, min(after + 10, self.count))
        ]
        return History(tuple(found), more=after + 10 < self.count)


@pytest.mark.parametrize("form", ["jsonl", "csv", "sqlite"])
def test_memory_does_not_grow_with_the_number_of_results(form: str, tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.reset_peak()
        assert export(Many(count), tmp_path / f"{count}", form).rows == count * 200
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        peak(2)  # what is loaded and cached once
        assert peak(20) < peak(4) + 200_000
    finally:
        tracemalloc.stop()

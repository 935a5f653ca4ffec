"""What a peer keeps for when it is cut off, on a real disk: torn, damaged, full, and over boots."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from p2psched.model import chunks
from p2psched.model.errors import Damaged
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.reconcile import KeptResult, OwnedPart, Reconciliation
from p2psched.model.taskset import TaskSet
from p2psched.store import separation_files
from p2psched.store.separation_files import (
    REPORTS_MAX,
    Moment,
    Note,
    SeparationFiles,
    Spooled,
    passed_ms,
    this_boot,
)

ONE, TWO = b"1" * 16, b"2" * 16  # boots
JOB: Final = JobId("a" * 32)
SPEC: Final = JobSpec("night", TaskSet.of(0, 4), ProgramWork(("true",)))
NOTE: Final = Note((OwnedPart(JOB, 7, 1, TaskSet.of(0, 4)),), 3, 2, 40)


def opened(folder: Path) -> SeparationFiles:
    files = SeparationFiles(folder)
    files.open()
    return files


def kept(index: int) -> KeptResult:
    return KeptResult(JOB, 7, Segment(index, index + 1, Cause.OK, chunks.pack([b"x"])))


def test_an_empty_folder_recalls_nothing(tmp_path: Path) -> None:
    found = opened(tmp_path).recollect(Moment(ONE, 5_000, 0))
    assert (found.has_work, found.away_ms, found.spool) == (False, 0, ())


def test_what_is_owned_comes_back_with_its_jobs(tmp_path: Path) -> None:
    opened(tmp_path).note(NOTE, {JOB: SPEC})
    found = opened(tmp_path).recollect(Moment(ONE, 0, 0))
    assert (found.owned, found.specs) == (NOTE.owned, {JOB: SPEC})
    assert (found.incarnation, found.since, found.cursor) == (3, 2, 40)


def test_a_job_goes_with_its_last_task(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.note(NOTE, {JOB: SPEC})
    files.note(Note(), {})
    assert not any((tmp_path / "cutoff" / "specs").iterdir())


@pytest.mark.parametrize("name", ["owned", "heard", f"specs/{JOB}"])
@pytest.mark.parametrize("how", ["torn", "flipped"])
def test_a_damaged_note_is_left_out(tmp_path: Path, name: str, how: str) -> None:
    files = opened(tmp_path)
    files.note(NOTE, {JOB: SPEC})
    files.mark(Moment(ONE, 1_000, 0), 500)
    path = tmp_path / "cutoff" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] if how == "torn" else data[:-1] + bytes([data[-1] ^ 1]))
    found = opened(tmp_path).recollect(Moment(ONE, 3_000, 0))
    lost = {"owned": not found.owned, "heard": not found.away_ms}
    assert lost.get(name, not found.specs)


def test_results_come_back_in_order_up_to_a_torn_end(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.keep((kept(0),), anew=True)
    files.keep((kept(1), kept(2)), anew=False)
    path = tmp_path / "cutoff" / "results"
    path.write_bytes(path.read_bytes()[:-1])
    assert opened(tmp_path).recollect(Moment(ONE, 0, 0)).results == (kept(0), kept(1))


def test_results_kept_anew_replace_those_of_before(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.keep((kept(0), kept(1)), anew=True)
    files.keep((kept(2),), anew=True)
    assert opened(tmp_path).recollect(Moment(ONE, 0, 0)).results == (kept(2),)


def test_more_results_than_have_room_are_counted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separation_files, "RESULTS_BYTES_MAX", 100)
    files = opened(tmp_path)
    files.keep((kept(0), kept(1), kept(2)), anew=True)
    found = opened(tmp_path).recollect(Moment(ONE, 0, 0)).results
    assert len(found) + files.dropped == 3
    assert files.dropped


@pytest.mark.parametrize(
    ("then", "now", "passed"),
    [
        (Moment(ONE, 1_000, 50), Moment(ONE, 4_000, 10), 3_000),
        (Moment(ONE, 9_000, 1_000), Moment(TWO, 2_000, 61_000), 60_000),
        (Moment(ONE, 9_000, 61_000), Moment(TWO, 2_000, 1_000), 2_000),
        (Moment(ONE, 9_000, 1_000), Moment(TWO, 2_000, 1_500), 2_000),
    ],
    ids=["one-boot", "wall-clock-right", "wall-clock-back", "wall-clock-stood"],
)
def test_time_over_a_boot_is_never_less_than_what_ran(
    then: Moment, now: Moment, passed: int
) -> None:
    assert passed_ms(then, now) == passed


def test_the_time_cut_off_counts_on(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.note(NOTE, {JOB: SPEC})
    files.mark(Moment(ONE, 9_000, 1_000), 4_000)
    assert opened(tmp_path).recollect(Moment(ONE, 10_000, 0)).away_ms == 5_000
    assert opened(tmp_path).recollect(Moment(TWO, 700, 0)).away_ms == 4_700


def test_boots_have_names() -> None:
    assert len(this_boot()) == 16
    assert this_boot() == this_boot()


def test_the_spool_keeps_its_order_over_restarts(tmp_path: Path) -> None:
    jobs = [JobId(f"{n:032x}") for n in (9, 1, 5)]
    for job in jobs[:2]:
        opened(tmp_path).put(Spooled(job, SPEC, 0))
    opened(tmp_path).put(Spooled(jobs[2], SPEC, 0))
    assert [one.job for one in opened(tmp_path).spooled()] == jobs
    assert opened(tmp_path).take_out(jobs[0])
    assert not opened(tmp_path).take_out(jobs[0])
    assert [one.job for one in opened(tmp_path).spooled()] == jobs[1:]


def test_a_damaged_receipt_is_named_and_a_half_one_is_none(tmp_path: Path) -> None:
    opened(tmp_path).put(Spooled(JOB, SPEC, 0))
    (path,) = (tmp_path / "cutoff" / "spool").iterdir()
    path.with_name("00000002-" + "b" * 32 + ".new").write_bytes(b"half")
    assert len(opened(tmp_path).spooled()) == 1
    path.write_bytes(b"rot")
    with pytest.raises(Damaged, match=path.name):
        opened(tmp_path).spooled()


def test_the_newest_reports_stay(tmp_path: Path) -> None:
    files = opened(tmp_path)
    numbers = [files.report(Reconciliation(n, 0, 0)).number for n in range(REPORTS_MAX + 3)]
    assert numbers == list(range(1, REPORTS_MAX + 4))
    assert [report.number for report in opened(tmp_path).reports()] == numbers[3:]

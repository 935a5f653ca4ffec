"""What the tasks of a benchmark wrote down, as figures. And who is measured apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import naps
from bench.rivals import session


def side(folder: Path, *lines: str) -> Path:
    path = folder / "side"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_task_that_was_lost_is_told_from_one_that_had_ended(tmp_path: Path) -> None:
    path = side(
        tmp_path, "+ 0 1.0", "- 0 1.5", "+ 1 1.5", "+ 2 1.5", "+ 1 4.5", "+ 0 5.0", "- 1 5.0"
    )
    found = naps.told(path, killed_s=1.7, results=3, took_s=17.2)
    assert found == {
        "results": 3,
        "ended_again": 1,
        "twice": 2,
        "elsewhere_s": pytest.approx(2.8),
        "wall_s": 17.2,
    }


def test_without_all_results_there_is_no_time_and_without_a_second_start_none_of_it(
    tmp_path: Path,
) -> None:
    path = side(tmp_path, "+ 0 1.0", "- 0 1.5")
    found = naps.told(path, killed_s=1.7, results=1, took_s=None)
    assert found == {"results": 1, "ended_again": 0, "twice": 0}
    assert naps.last_s(path, 0.0) == 1.5
    assert naps.last_s(tmp_path / "nobody", 7.0) == 7.0


def test_a_task_tells_when_it_begins_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naps, "NAP_S", 0.0)
    path = tmp_path / "side"
    assert naps.nap(7, str(path)) == 7
    first, last = naps.lines(path)
    assert [(line.begins, line.number) for line in (first, last)] == [(True, 7), (False, 7)]
    assert first.at_s <= last.at_s


def test_what_kills_a_rival_has_one_of_its_own() -> None:
    names = ["functions_10k", "recovery_worker", "programs", "recovery_centre"]
    assert session.apart(names) == [
        ["functions_10k", "programs"],
        ["recovery_worker"],
        ["recovery_centre"],
    ]
    assert session.apart(["recovery_worker"]) == [["recovery_worker"]]

"""`p2psched sim`: what it prints."""

from __future__ import annotations

import json

import pytest

from p2psched.cli.app import run
from p2psched.testing.sim_report import Report
from p2psched.testing.simulate import Options, simulate

SMALL = ("--peers", "3", "--events", "500")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(["sim", *words, *SMALL]) == 0
    return capsys.readouterr().out


def test_a_run_says_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "run", "--seeds", "2", "--from", "5")
    assert "2 seeds, 0 failed" in out
    assert "entries" in out
    assert "owner lost to next grant" in out


def test_many_processes_find_what_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (
        json.loads(said(capsys, "run", "--seeds", "6", "--jobs", jobs, "-o", "json"))
        for jobs in "12"
    )
    assert one["happened"] == two["happened"]
    assert one["seeds"] == two["seeds"] == 6
    assert one["failures"] == []


def test_some_seeds_run_again_under_another_hash_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "--seeds", "4", "--recheck", "2")
    assert "2 of them ran again under another hash seed" in said(capsys, *words)

    def here_only(seed: int, options: Options) -> Report:
        report = simulate(seed, options)
        report.trace += seed == 3
        return report

    monkeypatch.setattr("p2psched.testing.run.simulate", here_only)
    assert run(["sim", *words, *SMALL]) == 1
    out = capsys.readouterr().out
    assert "seed 3 failed: P14: a seed is another run in another process" in out
    assert "again: PYTHONHASHSEED=4242 p2psched sim replay 3 --peers 3 --events 500" in out
    assert "seed 1 failed" not in out


def test_a_replay_is_the_same_run_and_shows_its_last_events(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, again = (said(capsys, "replay", "7", "--last", "12") for _ in range(2))
    assert first == again
    assert "seed 7: 3 peers" in first
    assert first.count("peer ") == 12
    report = json.loads(said(capsys, "replay", "7", "-o", "json"))
    assert report["why"] is None
    assert f"trace {report['trace']}" in first


def test_faults_are_those_that_were_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "run", "--seeds", "1", "--calm", "--fault", "drop=0.2", "-o", "json")
    happened = json.loads(out)["happened"]
    assert happened["dropped"] > 0
    assert "power lost" not in happened


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("sim", "run", "--fault", "nope=1"), "--fault 'nope=1' names no fault; names are drop"),
        (("sim", "run", "--fault", "drop"), "--fault 'drop' is no NAME=VALUE"),
        (("sim", "replay"), "Missing argument 'SEED'"),
        (("sim", "shrink", "7", *SMALL), "seed 7 breaks no promise"),
    ],
)
def test_wrong_usage_is_one_line(
    words: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert part in err

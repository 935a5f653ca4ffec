"""The arithmetic of the benchmark: what it calls a middle, a ratio, a regression, a target."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import compare, stats, targets
from bench.measures import registry
from bench.registry import Unsupported
from bench.rivals import session
from bench.run import Report
from bench.stats import Summary, at, more_is_better, ratios, summary
from bench.targets import Target

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile_is_one_of_the_values_in_whatever_order_they_came(
    share: float, expected: float
) -> None:
    assert at([float(value) for value in range(100, 0, -1)], share) == expected


def test_a_summary_has_the_middle_and_the_ends() -> None:
    assert summary([3.0, 1.0, 2.0]) == Summary(1.0, 2.0, 3.0)


def test_ratios_pair_the_runs_that_were_interleaved() -> None:
    assert ratios([10.0, 40.0], [5.0, 10.0]) == Summary(2.0, 3.0, 4.0)
    assert ratios([10.0, 40.0, 7.0], [5.0, 10.0]).high == 4.0  # the rival fell ill after two
    assert ratios([10.0, 30.0], [0.0, 10.0]).median == 3.0


def test_rates_should_rise_and_times_should_fall() -> None:
    assert more_is_better("programs.p2psched.per_s")
    assert more_is_better("results_1mb.ray.mb_per_s")
    assert not more_is_better("round_trip.p2psched.p50_ms")
    assert not more_is_better("functions_10k.p2psched.cpu_us")


def record(path: Path, **figures: list[float]) -> Path:
    named = {name.replace("__", "."): values for name, values in figures.items()}
    path.write_text(json.dumps({"date": path.stem, "figures": named}))
    return path


def test_a_comparison_names_what_got_worse_by_more_than_a_tenth_whichever_way_is_worse(
    tmp_path: Path,
) -> None:
    before = record(
        tmp_path / "a.json",
        f__us__per_s=[100.0, 100.0],
        t__us__p50_ms=[2.0],
        same__us__per_s=[100.0],
        better__us__p50_ms=[2.0],
        gone__us__per_s=[1.0],
    )
    after = record(
        tmp_path / "b.json",
        f__us__per_s=[85.0, 101.0, 80.0],
        t__us__p50_ms=[2.3],
        same__us__per_s=[91.0],
        better__us__p50_ms=[1.0],
        new__us__per_s=[1.0],
    )
    lines = compare.describe(stats.compare(compare.read(before), compare.read(after)))
    assert lines == [
        "f.us.per_s: 100.00 -> 85.00, 18% worse, but their ranges overlap",
        "t.us.p50_ms: 2.00 -> 2.30, 15% worse",
        "2 of 4 figures are more than 10% worse",
    ]


def test_a_comparison_survives_a_figure_that_was_or_became_nothing(tmp_path: Path) -> None:
    before = record(tmp_path / "a.json", a__us__per_s=[5.0], b__us__s=[0.0], c__us__s=[0.0])
    after = record(tmp_path / "b.json", a__us__per_s=[0.0], b__us__s=[0.0], c__us__s=[1.0])
    found = stats.compare(compare.read(before), compare.read(after))
    assert [(c.name, c.is_regression) for c in found] == [
        ("a.us.per_s", True),
        ("c.us.s", True),
        ("b.us.s", False),
    ]


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json is no record"):
        compare.read(tmp_path / "x.json")


def test_each_target_that_was_measured_is_judged_and_no_other() -> None:
    wanted = (
        Target("a.us.per_s", 100),
        Target("a.us.p50_ms", 2),
        Target("a.us.per_s", 0.7, of="a.limit.per_s"),
        Target("b.us.per_s", 1),
    )
    figures = {"a.us.per_s": [90.0, 120.0, 100.0], "a.us.p50_ms": [3.0], "a.limit.per_s": [200.0]}
    assert [line[:7] for line in targets.verdicts(figures, wanted)] == [
        "reached",
        "MISSED ",
        "MISSED ",
    ]


def test_every_target_is_a_figure_of_a_measure_that_exists() -> None:
    measures = registry().measures
    for target in targets.TARGETS:
        for figure in filter(None, (target.figure, target.of)):
            measure, contender, _ = figure.split(".")
            assert contender in measures[measure].contenders
    assert {measure for measure, _ in targets.BESIDE} <= set(measures)


def test_an_unknown_measure_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(KeyError, match="no measure 'x': there are disk, functions_10k"):
        registry().choose(["x"])
    assert [measure.name for measure in registry().choose(["programs"])] == ["programs"]
    some = [measure.name for measure in registry().choose(["commits_*_of_5", "programs"])]
    assert some == ["programs", *(f"commits_{n}_of_5" for n in (1, 8, 64, 512))]


def test_a_run_brings_one_value_of_a_figure_or_all_that_it_took() -> None:
    report = Report()
    report.note("m.us", {"s": [0.5, 0.7], "max_s": 0.7})
    report.note("m.us", {"s": [0.6], "max_s": 0.6})
    assert report.figures == {"m.us.s": [0.5, 0.7, 0.6], "m.us.max_s": [0.7, 0.6]}


def test_a_rivals_words_are_figures_or_the_reason_that_there_are_none() -> None:
    line = json.dumps({"version": "1", "figures": {"m": {"per_s": 2.0}}, "missing": {}})
    assert session.read(f"noise\n{line}\n", "", 0).figures == {"m": {"per_s": 2.0}}
    with pytest.raises(Unsupported, match="exit 1: no module named ray"):
        session.read("", "no module named ray\n", 1)
    traceback = 'Traceback:\n  File "/home/me/bench/main.py", line 1\nImportError: no celery'
    with pytest.raises(Unsupported, match=r"^exit 1: ImportError: no celery$"):
        session.read("", traceback, 1)
    with pytest.raises(Unsupported, match="it said nothing"):
        session.read("", "", 0)


def test_the_program_says_by_its_exit_code_whether_there_is_a_regression(tmp_path: Path) -> None:
    a = record(tmp_path / "a.json", f__us__per_s=[100.0])
    b = record(tmp_path / "b.json", f__us__per_s=[50.0])
    for before, after, code in ((a, b, 1), (b, a, 0)):
        command = [sys.executable, "-m", "bench.compare", str(before), str(after)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stderr) == (code, "")
        assert "1 figures are more than 10% worse" in done.stdout

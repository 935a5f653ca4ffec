"""The digits job: a grid without doubles, scores that repeat exactly, a winner without luck."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from p2psched.demo import digits
from p2psched.demo.digits import Point, Score
from p2psched.model.errors import UsageError

# Reads a pickled list of points, and trains them in `sys.argv[1]` forked workers one after another
# (0: in the fresh process itself). Writes one pickled list of scores for each.
_RUNNER = """
import os, pickle, sys
from p2psched.demo import digits

points = pickle.load(sys.stdin.buffer)
workers = int(sys.argv[1])
assert "sklearn" not in sys.modules, "the parent of the forks must be free of numeric libraries"
for _ in range(max(1, workers)):
    if workers and (child := os.fork()):
        assert os.waitpid(child, 0)[1] == 0
        continue
    sys.stdout.buffer.write(pickle.dumps(digits.run_alone(points)))
    sys.stdout.buffer.flush()
    if workers:
        os._exit(0)
"""


def _train_elsewhere(
    points: list[Point], *, forks: int, env: Mapping[str, str]
) -> list[list[Score]]:
    """Scores from a new process, or from each of `forks` workers of one."""
    plain = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER, str(forks)],
        input=pickle.dumps(points),
        capture_output=True,
        env={**plain, **env},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    stream = io.BytesIO(done.stdout)
    return [pickle.load(stream) for _ in range(max(1, forks))]


def _score(family: str, correct: int, *, fold: int = 0, size: int = 1) -> Score:
    confusion = tuple(
        tuple(correct if row == column == 0 else 0 for column in range(digits.CLASSES))
        for row in range(digits.CLASSES)
    )
    point = Point(family=family, settings=(("size", size),), fold=fold)
    return Score(point=point, correct=correct, tested=10, confusion=confusion, fit_s=0.5)


def test_grid_has_five_families_of_twelve_points_on_five_folds() -> None:
    points = digits.grid()
    assert len(points) == len(set(points)) == 300
    assert set(Counter(point.family for point in points).values()) == {60}
    assert len({point.family for point in points}) == 5
    assert set(Counter(point.candidate for point in points).values()) == {5}
    assert Counter(point.fold for point in points) == dict.fromkeys(range(5), 60)


def test_short_grid_is_a_fifth_of_the_whole_with_every_family_in_it() -> None:
    whole, short = digits.grid(), digits.grid(short=True)
    assert len(short) == len(set(short)) == 60
    assert set(short) < set(whole)
    assert {point.family for point in short} == {point.family for point in whole}


def test_neighbouring_tasks_are_of_different_families() -> None:
    points = digits.grid()
    assert all(a.family != b.family for a, b in pairwise(points))


def test_points_and_scores_survive_a_pickle() -> None:
    point = digits.grid()[0]
    score = replace(_score("f", 7), point=point)
    stream = io.BytesIO(pickle.dumps(point) + pickle.dumps(score))
    assert [pickle.load(stream), pickle.load(stream)] == [point, score]


def test_scores_compare_by_what_was_found_and_not_by_time() -> None:
    score = _score("f", 7)
    assert score == replace(score, fit_s=9.0)
    assert score != replace(score, correct=6)
    assert score != replace(score, confusion=_score("f", 6).confusion)


def test_the_highest_mean_wins_and_leads_its_family() -> None:
    scores = [
        *(_score("a", 9, fold=fold) for fold in (0, 1)),
        *(_score("a", 5, fold=fold, size=2) for fold in (0, 1)),
        _score("b", 10, fold=0),
        _score("b", 7, fold=1),
    ]
    winner = digits.reduce_scores(scores)
    assert winner.best.candidate == "a(size=1)"
    assert winner.best.accuracy == pytest.approx(0.9)
    assert winner.best.fit_s == 1.0
    assert [standing.family for standing in winner.leaderboard] == ["a", "b"]
    assert (winner.candidates, winner.scores) == (3, 6)
    assert winner.confusion[0][0] == 18
    assert sum(map(sum, winner.confusion)) == 18


def test_of_equal_candidates_the_first_by_name_wins_in_any_order() -> None:
    scores = [
        _score(family, 9, fold=fold, size=size)
        for family in ("b", "a")
        for size in (3, 2)
        for fold in range(3)
    ]
    expected = digits.reduce_scores(scores)
    assert expected.best.candidate == "a(size=2)"
    rng = random.Random(3)
    for _ in range(20):
        rng.shuffle(scores)
        assert digits.reduce_scores(scores) == expected


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([], "no scores"),
        ([_score("a", 9), _score("a", 9)], "two scores for a"),
        ([_score("a", 9), _score("b", 9), _score("b", 9, fold=1)], r"no score for a.*\[1\]"),
    ],
)
def test_scores_that_do_not_compare_are_refused(scores: list[Score], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        digits.reduce_scores(scores)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"family": "tea-leaves"}, "no such family"), ({"fold": 5}, "no fold 5")],
)
def test_a_point_from_elsewhere_is_refused(change: dict[str, str | int], words: str) -> None:
    point = digits.grid()[0]
    family, fold = str(change.get("family", point.family)), int(change.get("fold", 0))
    with pytest.raises(UsageError, match=words):
        digits.train(replace(point, family=family, fold=fold))


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'p2psched\[demo\]'"):
        digits.train(digits.grid()[0])


def test_importing_the_workload_loads_no_numeric_library() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, p2psched.demo.digits; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert "p2psched.demo.models" in loaded
    assert not {"numpy", "sklearn", "scipy"} & set(loaded)


@pytest.mark.long
@pytest.mark.process
def test_forked_workers_and_a_fresh_process_find_equal_scores() -> None:
    pytest.importorskip("sklearn", reason="needs the extra: pip install 'p2psched[demo]'")
    points = digits.grid()[-5:]  # one of every family, the largest of each
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    (alone,) = _train_elsewhere(points, forks=0, env={})
    assert [score.point for score in alone] == points
    assert all(score.tested >= 359 and score.accuracy > 0.9 for score in alone)
    assert all(sum(map(sum, score.confusion)) == score.tested for score in alone)
    assert _train_elsewhere(points, forks=3, env=one_thread) == [alone] * 3


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_whole_grid_gives_equal_scores_in_a_worker_and_alone() -> None:
    pytest.importorskip("sklearn", reason="needs the extra: pip install 'p2psched[demo]'")
    points = digits.grid()
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    (worker,) = _train_elsewhere(points, forks=1, env=one_thread)
    (alone,) = _train_elsewhere(points, forks=0, env={})
    assert worker == alone
    assert digits.reduce_scores(worker) == digits.reduce_scores(alone)

"""The demo's main job: the search for the best classifier of handwritten digits.

One task trains one candidate (a model family at one point of its grid) and tests it on one of five
folds of the 1,797 images that scikit-learn carries: 5 families x 12 points x 5 folds = 300 tasks.

Invariant: `train` is a function of its point alone, so scores that came back from many processes
equal those of `run_alone`, `==`, confusion matrices and all. That holds on one machine with one set
of libraries; between kinds of processors nothing is claimed.

It refuses to average unlike things: a missing or doubled fold is an error, never a shorter mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2psched.demo.models import AXES, FOLDS, Setting, evaluate, settings_of
from p2psched.model.errors import UsageError

CLASSES: Final = 10
SHORT_POINTS: Final = 4  # of each family, in the short form: 5 x 4 x 3 = 60 tasks
SHORT_FOLDS: Final = 3

Confusion = tuple[tuple[int, ...], ...]  # rows: the true digit; columns: the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One task: a candidate, and the fold that it is tested on."""

    family: str
    settings: tuple[Setting, ...]  # sorted by name
    fold: int  # 0..FOLDS-1

    @property
    def candidate(self) -> str:
        """The point without its fold, for people: `nearest-neighbours(k=3, weights=distance)`."""
        return f"{self.family}({', '.join(f'{name}={value}' for name, value in self.settings)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one task found. Two scores are equal if they agree on all but the time taken."""

    point: Point
    correct: int
    tested: int
    confusion: Confusion
    fit_s: float = field(compare=False)

    @property
    def accuracy(self) -> float:
        """Share of the fold that was answered right, 0..1."""
        return self.correct / self.tested


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A candidate over all of its folds."""

    candidate: str
    family: str
    settings: tuple[Setting, ...]
    accuracy: float  # mean of the folds, 0..1
    folds: int
    fit_s: float = field(compare=False)  # sum of the folds


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The answer of the whole job."""

    best: Standing
    confusion: Confusion  # of the best candidate, summed over its folds
    leaderboard: tuple[Standing, ...]  # the best candidate of every family, best first
    candidates: int
    scores: int


def grid(*, short: bool = False) -> list[Point]:
    """The tasks of the job, families interleaved so that quick and slow ones are spread evenly.

    300 points, or 60 if `short`: fewer candidates of every family, and three of the five folds.
    """
    folds = SHORT_FOLDS if short else FOLDS
    columns = []
    for family in AXES:
        settings = settings_of(family)
        step = len(settings) // SHORT_POINTS if short else 1
        columns.append(
            [
                Point(family=family, settings=chosen, fold=fold)
                for chosen in settings[::step]
                for fold in range(folds)
            ]
        )
    return [point for row in zip(*columns, strict=True) for point in row]


def train(point: Point) -> Score:
    """Train and test one candidate on one fold.

    Takes 0.03 to 0.6 s of one core; the first call in a process also imports scikit-learn, 1 s or
    so. Raises UsageError if that is not installed, or if the point is of no known family or fold.
    """
    if not 0 <= point.fold < FOLDS:
        raise UsageError(f"no fold {point.fold}: folds are 0 to {FOLDS - 1}")
    truths, answers, fit_s = evaluate(point.family, dict(point.settings), point.fold)
    confusion = [[0] * CLASSES for _ in range(CLASSES)]
    for truth, answer in zip(truths, answers, strict=True):
        confusion[truth][answer] += 1
    return Score(
        point=point,
        correct=sum(confusion[digit][digit] for digit in range(CLASSES)),
        tested=len(truths),
        confusion=tuple(map(tuple, confusion)),
        fit_s=fit_s,
    )


def run_alone(points: Iterable[Point]) -> list[Score]:
    """The same tasks, one after another in this process: what a cluster's scores must equal."""
    return [train(point) for point in points]


def reduce_scores(scores: Sequence[Score]) -> Winner:
    """Rank the candidates by mean accuracy; of equals, the first by name wins.

    The order of `scores` does not matter. Raises UsageError if there are none, if a point came
    twice, or if a candidate lacks a fold that another one has.
    """
    if not scores:
        raise UsageError("no scores to choose from: fetch the results of the job first")
    by_candidate = _by_candidate(scores)
    standings = sorted(map(_standing, by_candidate.values()), key=_rank)
    best_of_family: dict[str, Standing] = {}
    for standing in standings:
        best_of_family.setdefault(standing.family, standing)
    best = standings[0]
    return Winner(
        best=best,
        confusion=_sum(score.confusion for score in by_candidate[best.candidate].values()),
        leaderboard=tuple(best_of_family.values()),
        candidates=len(standings),
        scores=len(scores),
    )


def _by_candidate(scores: Sequence[Score]) -> dict[str, dict[int, Score]]:
    """Candidate and fold -> score, after checking that every candidate has the same folds."""
    found: dict[str, dict[int, Score]] = defaultdict(dict)
    for score in scores:
        folds = found[score.point.candidate]
        if score.point.fold in folds:
            raise UsageError(
                f"two scores for {score.point.candidate}, fold {score.point.fold}: pass each once"
            )
        folds[score.point.fold] = score
    wanted = {score.point.fold for score in scores}
    for candidate, folds in found.items():
        if missing := sorted(wanted - folds.keys()):
            raise UsageError(f"no score for {candidate}, folds {missing}: fetch all results first")
    return found


def _standing(folds: Mapping[int, Score]) -> Standing:
    scores = [folds[fold] for fold in sorted(folds)]  # one order: the sum of floats depends on it
    point = scores[0].point
    return Standing(
        candidate=point.candidate,
        family=point.family,
        settings=point.settings,
        accuracy=sum(score.accuracy for score in scores) / len(scores),
        folds=len(scores),
        fit_s=sum(score.fit_s for score in scores),
    )


def _rank(standing: Standing) -> tuple[float, str]:
    return -standing.accuracy, standing.candidate


def _sum(matrices: Iterable[Confusion]) -> Confusion:
    return tuple(tuple(map(sum, zip(*rows, strict=True))) for rows in zip(*matrices, strict=True))

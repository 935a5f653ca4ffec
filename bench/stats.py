"""Figures of repeated runs: middle and spread, ratios within a run, what got worse between two.

Pure. A figure's name is `measure.contender.unit`; its last part tells which way is better.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Figures = Mapping[str, Sequence[float]]

TOLERANCE: Final = 0.10
_MORE_IS_BETTER: Final = frozenset({"per_s", "mb_per_s", "speed_up", "results"})


def at(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie: 0.99 for p99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True, slots=True)
class Summary:
    low: float
    median: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    return Summary(min(values), statistics.median(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Run by run, as they were interleaved: each pair met the same machine."""
    pairs = zip(ours, theirs, strict=False)  # a rival that fell ill has fewer runs
    return summary([a / b for a, b in pairs if b])


def more_is_better(name: str) -> bool:
    return name.rpartition(".")[2] in _MORE_IS_BETTER


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure moved between two records. `worse_by` is a share, below 0 if it got better."""

    name: str
    before: Summary
    after: Summary
    worse_by: float

    @property
    def is_regression(self) -> bool:
        return self.worse_by > TOLERANCE

    @property
    def is_beyond_spread(self) -> bool:
        """True if no run after is as good as the worst before."""
        if more_is_better(self.name):
            return self.after.high < self.before.low
        return self.after.low > self.before.high


def compare(before: Figures, after: Figures) -> list[Change]:
    """The figures that both have, the worst first."""
    changes = []
    for name in before.keys() & after.keys():
        if not before[name] or not after[name]:
            continue
        a, b = summary(before[name]), summary(after[name])
        changes.append(Change(name, a, b, _worse_by(name, a.median, b.median)))
    return sorted(changes, key=lambda change: (-change.worse_by, change.name))


def _worse_by(name: str, before: float, after: float) -> float:
    bad, good = (before, after) if more_is_better(name) else (after, before)
    if bad == good:
        return 0.0
    return bad / good - 1 if good else float("inf")

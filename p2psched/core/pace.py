"""How quick one attempt of a task is, from what it says: will it make its limit, is it silent.

Pure: it is told, and says what it finds. The rate is taken between words, not from the start: what
a task does before its first word is no part of its pace. Early on there must be much in it before a
task counts as too slow, since the first steps are seldom like the others (`_margin`); a task that
got quicker is judged by what it does now, one that got slower only once that has lasted.
"""

from __future__ import annotations

import enum
from itertools import pairwise
from typing import Final

from p2psched.model.execution import TaskReport
from p2psched.model.progress_messages import done_text

SAMPLES_MAX: Final = 32  # then every second one is dropped
SAMPLES_MIN: Final = 3  # words that a pace can be taken from
RECENT: Final = 0.25  # of the time between the first and the last word
EVIDENCE_MIN: Final = 0.02  # of the limit, between those words, before anything is concluded
EVIDENCE_WHOLE: Final = 0.10  # from here on more of it makes it no better
MARGIN_EARLY: Final = 1.5  # times the limit
MARGIN: Final = 1.05
LONG: Final = 3  # times what was expected
GAPS_MAX: Final = 2  # longest times between words, until the silence counts


class Finding(enum.Enum):
    FINE = "fine"
    SLOW = "too slow for its limit"
    SILENT = "silent"
    LONG = "longer than expected"


class Pace:
    def __init__(
        self,
        *,
        limit_ms: int | None = None,
        heartbeat_ms: int | None = None,
        expect_ms: int | None = None,
    ) -> None:
        self._limit_ms = limit_ms
        self._heartbeat_ms = heartbeat_ms
        self._expect_ms = expect_ms
        self._samples: list[tuple[int, float]] = []  # when, in ms from its start; done by then
        self.left_ms: int | None = None  # as far as there is a pace
        self.why = ""  # of the last finding

    def step(self, report: TaskReport) -> Finding:
        if report.said_ms is not None:
            self._take(report.ran_ms - report.said_ms, report.done)
        self.left_ms = self._left_ms(report)
        finding = self._find(report)
        self.why = self._why(finding, report)
        return finding

    def _take(self, at_ms: int, done: float) -> None:
        samples = self._samples
        if samples and done < samples[-1][1]:
            samples.clear()  # it has begun something new
        if samples and done == samples[-1][1]:
            return
        samples.append((at_ms, done))
        if len(samples) > SAMPLES_MAX:
            self._samples = [*samples[:-1:2], samples[-1]]

    # --- how long it will take ---

    def _left_ms(self, report: TaskReport) -> int | None:
        if report.total is None or len(self._samples) < SAMPLES_MIN:
            return None
        return self._reckoned(report, self._recent())

    def _recent(self) -> int:
        """The first sample of what it does now."""
        samples = self._samples
        first_ms, last_ms = samples[0][0], samples[-1][0]
        since_ms = last_ms - RECENT * (last_ms - first_ms)
        at = next(n for n, (at_ms, _) in enumerate(samples) if at_ms >= since_ms)
        return min(at, len(samples) - SAMPLES_MIN)

    def _reckoned(self, report: TaskReport, start: int) -> int | None:
        """What is left to run at the rate since that sample."""
        assert report.total is not None
        samples = self._samples[start:]
        (first_ms, first), (last_ms, last) = samples[0], samples[-1]
        gap_ms = max(b - a for (a, _), (b, _) in pairwise(samples))
        end_ms = report.ran_ms if report.ran_ms - last_ms > GAPS_MAX * gap_ms else last_ms
        if last <= first:
            return None
        whole_ms = (report.total - last) * (end_ms - first_ms) / (last - first)
        return max(0, round(whole_ms) - (report.ran_ms - end_ms))

    # --- what that means ---

    def _find(self, report: TaskReport) -> Finding:
        if self._heartbeat_ms is not None and report.quiet_ms >= self._heartbeat_ms:
            return Finding.SILENT
        if self._limit_ms is not None:
            return Finding.SLOW if self._is_slow(report, self._limit_ms) else Finding.FINE
        if self._expect_ms is not None and (
            report.ran_ms > LONG * self._expect_ms or self._is_slow(report, LONG * self._expect_ms)
        ):
            return Finding.LONG
        return Finding.FINE

    def _is_slow(self, report: TaskReport, limit_ms: int) -> bool:
        if self.left_ms is None:
            return False
        if not self._misses(report, limit_ms, self._recent(), self.left_ms):
            return False
        overall_ms = self._reckoned(report, 0)
        if overall_ms is not None and self._misses(report, limit_ms, 0, overall_ms):
            return True
        start_ms = self._samples[self._recent()][0]
        return report.ran_ms - start_ms >= EVIDENCE_WHOLE * limit_ms

    def _misses(self, report: TaskReport, limit_ms: int, start: int, left_ms: int) -> bool:
        evidence = (report.ran_ms - self._samples[start][0]) / limit_ms
        if start == 0 and evidence < EVIDENCE_MIN:
            return False
        return report.ran_ms + left_ms > _margin(evidence) * limit_ms

    def _why(self, finding: Finding, report: TaskReport) -> str:
        ran = span(report.ran_ms)
        match finding:
            case Finding.SILENT:
                assert self._heartbeat_ms is not None
                most = span(self._heartbeat_ms)
                return f"silent for {span(report.quiet_ms)}, and {most} is the most"
            case Finding.SLOW:
                assert self._limit_ms is not None
                assert self.left_ms is not None
                return (
                    f"at its pace it takes {span(report.ran_ms + self.left_ms)}, and its limit is "
                    f"{span(self._limit_ms)}: {done_text(report.done, report.total)} after {ran}"
                )
            case Finding.LONG:
                assert self._expect_ms is not None
                return f"it takes longer than {LONG} times {span(self._expect_ms)}, as expected"
            case Finding.FINE:
                return ""


def _margin(evidence: float) -> float:
    """By how much a task must miss its limit, by the share of that which was seen."""
    early = max(0.0, 1 - evidence / EVIDENCE_WHOLE)
    return MARGIN + (MARGIN_EARLY - MARGIN) * early


def span(time_ms: float) -> str:
    """For people."""
    seconds = round(time_ms / 1000, 1 if time_ms < 10_000 else None)
    if seconds < 120:
        return f"{seconds:g} s"
    minutes = round(time_ms / 60_000)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"

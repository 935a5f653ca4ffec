"""What this peer knows of the load of the others, from news that came by gossip.

Advice, and treated as such: what can't be true is dropped and counted, whoever it is from. Of each
peer there is one report, and one delta at most that waits for the whole report it builds on.
Invariant: of one incarnation of a peer the report with the highest number is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from p2psched.core.load_report import URGENT_MS
from p2psched.model.ids import PeerId
from p2psched.model.limits import SLOTS_MAX
from p2psched.model.load import Liveness, LoadReport, Seen
from p2psched.model.load_news import (
    QUEUED_MAX,
    SPEEDS_MAX,
    WARM_MAX,
    LoadDelta,
    LoadNews,
    WholeLoad,
    applied,
)

PEERS_MAX: Final = 10_000
# Numbers rise by one with each report. One that is further ahead than can be is none of ours, and
# would keep out all that follow.
AHEAD_MAX: Final = 1_000
INCARNATIONS_AHEAD_MAX: Final = 1_000_000
NUMBER_MAX: Final = 1 << 40
_VALUE_MAX: Final = 1 << 53
_PER_MILLE: Final = ("cpu", "foreign_cpu", "duty")
_SCALARS: Final = tuple(
    field.name
    for field in msgspec.structs.fields(LoadReport)
    if field.type is int and field.name not in {"battery", "temperature"}
)


class _Row:
    __slots__ = ("heard_ms", "incarnation", "liveness", "report", "waiting", "whole")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.liveness = Liveness.ALIVE
        self.whole: LoadReport | None = None
        self.report: LoadReport | None = None
        self.waiting: LoadDelta | None = None
        self.heard_ms = 0


class LoadView:
    """Mutable. `me` is in it, too, as it says itself."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._rows: dict[PeerId, _Row] = {}
        self._seen: Mapping[PeerId, Seen] | None = None
        self._mine: Seen | None = None
        self.dropped: Counter[str] = Counter()  # reason -> news

    # --- what comes in ---

    def on_member(self, now_ms: int, peer: PeerId, *, incarnation: int, liveness: Liveness) -> None:
        """Gossip knows this peer, and thinks so of it."""
        if peer == self._me:
            return
        row = self._rows.get(peer)
        if row is None:
            if len(self._rows) >= PEERS_MAX:
                self.dropped["too many peers"] += 1
                return
            row = self._rows[peer] = _Row(incarnation)
            row.heard_ms = now_ms
        row.liveness = liveness
        if incarnation > row.incarnation:
            self._begin(row, incarnation)
        self._seen = None

    def forget(self, peer: PeerId) -> None:
        """Gossip knows it no more."""
        if self._rows.pop(peer, None) is not None:
            self._seen = None

    def on_malformed(self) -> None:
        """News could not be decoded: NaN and the like among them."""
        self.dropped["malformed"] += 1

    def on_news(self, now_ms: int, origin: PeerId, life: int, news: LoadNews) -> None:
        """`life`: the incarnation of the ledger in which it was said."""
        row = self._rows.get(origin)
        if row is None:  # itself, too
            self.dropped["foreign"] += 1
            return
        reason = self._refusal(now_ms, row, life, news)
        if reason:
            self.dropped[reason] += 1
            return
        if life > row.incarnation:
            self._begin(row, life)
        if isinstance(news, WholeLoad):
            row.whole = row.report = news.report
            row.heard_ms = now_ms
        else:
            row.waiting = news
        self._take_waiting(now_ms, row)
        self._seen = None

    def on_self(self, now_ms: int, incarnation: int, report: LoadReport) -> None:
        """How this peer is itself."""
        self._mine = Seen(self._me, incarnation, Liveness.ALIVE, now_ms, report)
        self._seen = None

    # --- what it is for ---

    def seen(self) -> Mapping[PeerId, Seen]:
        """All of them. A new mapping whenever something has changed, else the same."""
        if self._seen is None:
            seen = [
                Seen(peer, row.incarnation, row.liveness, row.heard_ms, row.report)
                for peer, row in sorted(self._rows.items())
            ]
            if self._mine is not None:
                seen.append(self._mine)
            used = _used_by_peers(seen)
            self._seen = {one.peer: _cleared(one, used) for one in seen}
        return self._seen

    # --- one report ---

    def _refusal(self, now_ms: int, row: _Row, life: int, news: LoadNews) -> str:
        """Why it is not taken, or nothing."""
        if life < row.incarnation:
            return "old"
        if life > row.incarnation + INCARNATIONS_AHEAD_MAX:
            return "future"
        number = news.report.number if isinstance(news, WholeLoad) else news.number
        if number <= 0 or _is_impossible(news):
            return "impossible"
        if number > NUMBER_MAX:
            return "future"
        if life != row.incarnation:
            return ""
        if row.waiting is not None and number < row.waiting.number and isinstance(news, LoadDelta):
            return "old"
        if row.report is None:
            return ""
        ahead = AHEAD_MAX + max(0, now_ms - row.heard_ms) // URGENT_MS
        if number > row.report.number + ahead:
            return "future"
        return "old" if number <= row.report.number else ""

    def _take_waiting(self, now_ms: int, row: _Row) -> None:
        """Apply the delta that is there, once its base is."""
        waiting, whole = row.waiting, row.whole
        if waiting is None or whole is None or waiting.base > whole.number:
            return
        row.waiting = None
        assert row.report is not None
        if waiting.base != whole.number or waiting.number <= row.report.number:
            self.dropped["old"] += 1
            return
        try:
            report = applied(whole, waiting)
        except ValueError:
            self.dropped["impossible"] += 1
            return
        if fault(report):
            self.dropped["impossible"] += 1
            return
        row.report, row.heard_ms = report, now_ms

    def _begin(self, row: _Row, incarnation: int) -> None:
        row.incarnation = incarnation
        row.whole = row.report = row.waiting = None


def fault(report: LoadReport) -> str:
    """What can't be in a report, or nothing."""
    for name in _SCALARS:
        if not 0 <= getattr(report, name) <= _VALUE_MAX:
            return name
    for name in _PER_MILLE:
        if getattr(report, name) > 1000:
            return name
    if not -1 <= report.battery <= 100 or not -1 <= report.temperature < 1_000:
        return "battery" if not -1 <= report.battery <= 100 else "temperature"
    if report.slots > SLOTS_MAX or report.running > report.slots:
        return "slots"
    if report.memory_free > report.memory or report.gpus_busy > report.gpus:
        return "memory_free" if report.memory_free > report.memory else "gpus_busy"
    return _inner_fault(report)


def _inner_fault(report: LoadReport) -> str:
    lengths = (len(report.queued), len(report.speeds), len(report.warm))
    if any(length > most for length, most in zip(lengths, _LENGTHS_MAX, strict=True)):
        return "length"
    numbers = [number for pair in report.queued for number in pair] + list(report.warm)
    for speed in report.speeds:
        numbers += [speed.kind, speed.mean_us, speed.spread_us, speed.count]
    return "" if all(0 <= number <= _VALUE_MAX for number in numbers) else "negative"


_LENGTHS_MAX: Final = (QUEUED_MAX, SPEEDS_MAX, WARM_MAX)


def _is_impossible(news: LoadNews) -> bool:
    if isinstance(news, WholeLoad):
        return bool(fault(news.report))
    return not 0 < news.base < news.number


def _own(report: LoadReport) -> int:
    """What a peer and its tasks use themselves."""
    return max(0, report.cpu - report.foreign_cpu)


def _used_by_peers(seen: Iterable[Seen]) -> dict[int, int]:
    """Machine -> per mille that the peers there use themselves."""
    used: dict[int, int] = {}
    for one in seen:
        if one.load is not None and one.load.machine and one.liveness < Liveness.DEAD:
            used[one.load.machine] = used.get(one.load.machine, 0) + _own(one.load)
    return used


def _cleared(one: Seen, used: Mapping[int, int]) -> Seen:
    """Other peers on the same processors are no foreigners: they take their own tasks."""
    report = one.load
    if report is None or not report.machine or not report.foreign_cpu:
        return one
    others = max(0, used.get(report.machine, 0) - _own(report))
    if not others:
        return one
    report = msgspec.structs.replace(report, foreign_cpu=max(0, report.foreign_cpu - others))
    return msgspec.structs.replace(one, load=report)

"""Who hears the followers: each feeder tells the leader, the leader knows of all (ADR 0034).

A feeder says what has changed since the last report that the leader confirmed. So a report costs
the leader as much with ten followers as with a thousand, unless some came or went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from p2psched.core.feed import HEARD_MS
from p2psched.model.feed_messages import FeedReport, FeedReported
from p2psched.model.ids import PeerId

REPORT_MS: Final = 250


class Reporter:
    """The feeder's side."""

    def __init__(self) -> None:
        self._leader: PeerId | None = None
        self._number = 0  # of the last report
        self._said: frozenset[PeerId] = frozenset()  # with it
        self._base = 0  # of the last report that the leader has confirmed
        self._confirmed: frozenset[PeerId] = frozenset()
        self._due_ms = 0

    def on_clock(self, now_ms: int, leader: PeerId, heard: Iterable[PeerId]) -> FeedReport | None:
        """`leader` is another peer."""
        if leader != self._leader:
            self._leader = leader
            self._base, self._confirmed, self._due_ms = 0, frozenset(), now_ms
        if now_ms < self._due_ms:
            return None
        self._due_ms = now_ms + REPORT_MS
        now = frozenset(heard)
        if not now and not self._confirmed and not self._said:
            return None
        if now != self._said or not self._number:
            self._number += 1
            self._said = now
        if self._number == self._base:
            return FeedReport(self._base, self._base)
        came, gone = sorted(now - self._confirmed), sorted(self._confirmed - now)
        return FeedReport(self._number, self._base, tuple(came), tuple(gone))

    def on_reported(self, leader: PeerId, reported: FeedReported) -> None:
        if leader != self._leader:
            return
        if reported.number == self._number:
            self._base, self._confirmed = self._number, self._said
        elif not reported.number:
            self._base, self._confirmed = 0, frozenset()


class _Known(msgspec.Struct):
    """What one feeder has said."""

    number: int
    peers: set[PeerId]
    at_ms: int


class Roll:
    """The leader's side."""

    def __init__(self) -> None:
        self._reports: dict[PeerId, _Known] = {}
        self.through: dict[PeerId, PeerId] = {}  # follower -> who hears it
        self._last_ms: dict[PeerId, int] = {}  # of those that nobody hears: when they were heard

    def clear(self) -> None:
        """Somebody else leads."""
        self._reports.clear()
        self.through.clear()
        self._last_ms.clear()

    def on_report(self, now_ms: int, feeder: PeerId, report: FeedReport) -> FeedReported | None:
        """What to answer, if anything: there is nothing new in most reports."""
        known = self._reports.get(feeder)
        if known is not None and known.number == report.number:
            known.at_ms = now_ms
            return FeedReported(report.number) if report.number != report.base else None
        if not report.base:
            self._replace(now_ms, feeder, report.number, set(report.came))
        elif known is not None and known.number == report.base:
            self._replace(
                now_ms, feeder, report.number, (known.peers - set(report.gone)) | set(report.came)
            )
        else:
            return FeedReported(0)
        return FeedReported(report.number)

    def on_own(self, now_ms: int, me: PeerId, heard: set[PeerId]) -> None:
        """The leader feeds some itself: nobody else could."""
        if heard or me in self._reports:
            self._replace(now_ms, me, 0, heard)

    def _replace(self, now_ms: int, feeder: PeerId, number: int, peers: set[PeerId]) -> None:
        known = self._reports.get(feeder)
        for peer in sorted(known.peers - peers) if known is not None else ():
            if self.through.get(peer) == feeder:
                del self.through[peer]
                self._last_ms[peer] = now_ms - HEARD_MS
        for peer in sorted(peers):
            self.through[peer] = feeder
        self._reports[feeder] = _Known(number, peers, now_ms)

    def contacts(self, now_ms: int, followers: Iterable[PeerId]) -> Mapping[PeerId, int]:
        """When each was last heard, as far as is known here; who has just come up counts as heard
        now."""
        contacts: dict[PeerId, int] = {}
        last_ms, self._last_ms = self._last_ms, {}
        for peer in followers:
            feeder = self.through.get(peer)
            if feeder is not None:
                contacts[peer] = self._reports[feeder].at_ms
            else:
                contacts[peer] = self._last_ms[peer] = last_ms.get(peer, now_ms)
        return contacts

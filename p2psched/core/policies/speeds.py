"""How quick peers are at which kind of work, out of what each of them says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import report_of
from p2psched.core.spare import spare
from p2psched.model.ids import PeerId
from p2psched.model.load import TypeSpeed
from p2psched.model.needs import AVERAGE_WEIGHT

USUAL: Final = 1_000  # per mille: of a peer that nothing is known of
SPEED_MIN, SPEED_MAX = 20, 50_000
COUNT_MIN: Final = 2  # tasks that were measured, before their spread says anything
SURE: Final = 0.5  # of the spread: about the error of the moving average


class Speeds(msgspec.Struct, frozen=True, gc=False):
    """`usual_us`: kind -> what a task takes on an average peer. `general`: peer -> its speed, over
    all that it ran lately."""

    usual_us: Mapping[int, int] = {}
    means: Mapping[PeerId, Mapping[int, int]] = {}
    general: Mapping[PeerId, int] = {}
    left: Mapping[PeerId, int] = {}  # of its slots, if it isn't all: per mille

    def of(self, peer: PeerId, kind: int) -> int:
        """Per mille: 2,000 runs a task in half the time that is usual."""
        mean = self.means.get(peer, NOTHING).get(kind)
        speed = self.usual_us[kind] * USUAL // mean if mean else self.general.get(peer, USUAL)
        return bounded(min(speed, self.left.get(peer, SPEED_MAX)))

    def general_of(self, peer: PeerId) -> int:
        """At whatever waits there."""
        return bounded(min(self.general.get(peer, USUAL), self.left.get(peer, SPEED_MAX)))


NOTHING: Final[Mapping[int, int]] = {}
UNKNOWN: Final = Speeds()


def bounded(speed: int) -> int:
    return max(SPEED_MIN, min(SPEED_MAX, speed))


def _sure_us(speed: TypeSpeed, usual_us: int) -> int:
    """What of the mean differs from the usual by more than chance, for what tasks took varies."""
    if speed.count < COUNT_MIN:
        margin_us = speed.mean_us / COUNT_MIN
    else:
        margin_us = speed.spread_us * (SURE + speed.count**-0.5)
    apart_us = speed.mean_us - usual_us
    sure_us = max(0.0, abs(apart_us) - margin_us)
    return max(1, round(usual_us + (sure_us if apart_us > 0 else -sure_us)))


def speeds_of(peers: Sequence[Candidate]) -> Speeds:
    """Cost O(peers x kinds of work)."""
    said: dict[PeerId, dict[int, TypeSpeed]] = {}
    by_kind: dict[int, list[int]] = {}
    left: dict[PeerId, int] = {}
    for peer in peers:
        report = report_of(peer)
        if report is None:
            continue
        said[peer.peer] = {speed.kind: speed for speed in report.speeds}
        for speed in report.speeds:
            by_kind.setdefault(speed.kind, []).append(max(1, speed.mean_us))
        share = spare(report, peer.slots)
        if share < USUAL:
            left[peer.peer] = share
    usual = {kind: sum(found) // len(found) for kind, found in by_kind.items()}
    means = {
        peer: {kind: _sure_us(speed, usual[kind]) for kind, speed in of.items()}
        for peer, of in said.items()
    }
    weight = sum(peer.weight for peer in peers) // max(1, len(peers)) or AVERAGE_WEIGHT
    general = {}
    for peer in peers:
        report = report_of(peer)
        counted = [(s.count, s.kind) for s in report.speeds if s.count] if report else []
        total = sum(number for number, _ in counted)
        if total:
            of_peer = means[peer.peer]
            # Of what it runs most: that is what waits there, too.
            general[peer.peer] = bounded(
                sum(n * usual[kind] * USUAL // of_peer[kind] for n, kind in counted) // total
            )
        else:
            general[peer.peer] = bounded(peer.weight * USUAL // weight)
    return Speeds(usual, means, general, left)

"""Timers of consensus, and how they adapt to what a round takes here and now.

An election timeout has to be several times what a vote or a heartbeat takes, or peers campaign
against a leader that works: a disk that syncs in a third of a second, a link around the world or
a busy interpreter would do it. So it is stretched by what was measured, between the configured
value and `stretch_max` times it. Nothing that must hold rests on it: only when somebody campaigns.
"""

from __future__ import annotations

from typing import Final

import msgspec

ROUNDS_MIN: Final = 5  # that fit the shortest election timeout
STRETCH_MAX: Final = 3
APART_MAX: Final = 10  # heartbeats of two presets; what is further apart doesn't work together
NEVER_MS: Final = -(10**15)  # of a time of what has not happened yet
SYNC_WEIGHT: Final = 0.2  # of the newest in the moving average


class Timing(msgspec.Struct, frozen=True):
    """Milliseconds. The election timeout is drawn anew each time from min..max."""

    heartbeat_ms: int = 100
    election_ms_min: int = 500
    election_ms_max: int = 1000
    stretch_max: int = STRETCH_MAX  # how far it may adapt; 1: it doesn't

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ms * 2 <= self.election_ms_min < self.election_ms_max:
            raise ValueError("need 2 x heartbeat <= shortest election timeout < longest")
        if self.stretch_max < 1:
            raise ValueError("a timer is never shorter than configured")


def stretched(base: Timing, round_ms: float) -> Timing:
    """`round_ms`: what a sync, a round trip and a late loop take together. Never shorter than
    `base`, never longer than `stretch_max` times it. The heartbeat stays: it costs little."""
    factor = min(max(1.0, ROUNDS_MIN * round_ms / base.election_ms_min), base.stretch_max)
    if factor == 1:
        return base
    return Timing(
        base.heartbeat_ms,
        int(base.election_ms_min * factor),
        int(base.election_ms_max * factor),
        base.stretch_max,
    )


def under(base: Timing, heartbeat_ms: int) -> Timing:
    """`base` for whoever follows a leader that speaks so seldom, because it has another preset: as
    many of its heartbeats fit as of our own would. Never shorter than `base`."""
    factor = min(max(1.0, heartbeat_ms / base.heartbeat_ms), APART_MAX)
    if factor == 1:
        return base
    return Timing(
        base.heartbeat_ms,
        int(base.election_ms_min * factor),
        int(base.election_ms_max * factor),
        base.stretch_max,
    )


class Pace:
    """What was measured of this member and of the way to its leader, and the timing from it."""

    __slots__ = (
        "_adapted",
        "_base",
        "_late_ms",
        "_leader_ms",
        "leader_heartbeat_ms",
        "sync_ms",
        "timing",
    )

    def __init__(self, base: Timing) -> None:
        self._base = base
        self._adapted = (0, 0.0)  # to what: the leader's heartbeat, and what a round takes
        self._late_ms = 0.0
        self._leader_ms = 0.0
        self.leader_heartbeat_ms = 0  # 0: we lead, or it doesn't say
        self.sync_ms = 0.0  # moving average
        self.timing = base

    def on_sync(self, took_ms: float) -> None:
        if took_ms > 0:
            self.sync_ms += SYNC_WEIGHT * (took_ms - self.sync_ms)
            self._adapt()

    def on_late(self, late_ms: float) -> None:
        """How late our own loop is, as whoever drives us has measured it."""
        self._late_ms = late_ms
        self._adapt()

    def on_leader(self, slack_ms: float, heartbeat_ms: int = 0) -> None:
        """As a follower: what our leader says of itself and the way to us. As the leader: the
        round trip to a majority."""
        self._leader_ms = slack_ms
        self.leader_heartbeat_ms = max(0, heartbeat_ms)
        self._adapt()

    def slack_ms(self, round_trip_ms: float) -> int:
        """As the leader: what a follower at this distance has to bear."""
        return int(round_trip_ms + self._late_ms)

    def _adapt(self) -> None:
        measured = self.leader_heartbeat_ms, self.sync_ms + self._late_ms + self._leader_ms
        if measured != self._adapted:  # with each message of the leader, and seldom news
            self._adapted = measured
            self.timing = stretched(under(self._base, measured[0]), measured[1])

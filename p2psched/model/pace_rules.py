"""What a job wants done about tasks that are too slow or silent."""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from p2psched.model import limits

PATTERN_LEN_MAX: Final = 256
EXPECT_AS_MEASURED: Final = 0  # what tasks of the job have taken on the same peer
HEARTBEAT_MS_MIN: Final = 1_000  # a peer looks once a second


class OnStall(enum.IntEnum):
    """What follows."""

    WARN = 0  # an alert, once for each job
    ELSEWHERE = 1  # besides, the attempt ends as `stalled`, and the job's rule for that follows
    SPECULATE = 2  # besides, the task is begun elsewhere, too, and the first good end counts


class PaceRules(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Without any, a task that says how far it is and has a limit is watched all the same, and
    there is an alert if its pace can't make it."""

    heartbeat_ms: int | None = None  # of silence that is too long
    on_stall: OnStall = OnStall.WARN
    pattern: str = ""  # for what a program prints: how far it is
    expect_ms: int | None = None  # that a task takes; without a limit three times that is long

    def __post_init__(self) -> None:
        for span_ms, least_ms in (
            (self.heartbeat_ms, HEARTBEAT_MS_MIN),
            (self.expect_ms, EXPECT_AS_MEASURED),
        ):
            if span_ms is not None and not least_ms <= span_ms <= limits.KEEP_MS_MAX:
                raise ValueError(f"a time for this is at least {least_ms} ms, and not {span_ms} ms")
        if self.pattern:
            _check_pattern(self.pattern)


def _check_pattern(pattern: str) -> None:
    if len(pattern) > PATTERN_LEN_MAX:
        raise ValueError(f"a pattern for progress has up to {PATTERN_LEN_MAX} characters")
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if not groups:
        raise ValueError(
            f"a pattern for progress has a group for what is done, and maybe one for how much "
            f"there is, like 'epoch (\\d+)/(\\d+)': {pattern!r} has none"
        )

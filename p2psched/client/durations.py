"""Spans of time as programs write them."""

from __future__ import annotations

import re
from typing import Final

from p2psched.model.errors import UsageError

Duration = str | float  # "30s", "1.5m", or seconds

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def duration_ms(duration: Duration) -> int:
    """Of "1.5s", "200ms", "5m", "2h", or of seconds. Raises UsageError."""
    if isinstance(duration, str):
        found = _DURATION.fullmatch(duration.strip())
        if found is None:
            raise UsageError(f"{duration!r} is no duration: write it like 30s, 200ms, 5m or 2h")
        return round(float(found[1]) * _UNIT_MS[found[2]])
    if not 0 <= duration < 10**9:
        raise UsageError(f"{duration} is no duration in seconds")
    return round(duration * 1_000)

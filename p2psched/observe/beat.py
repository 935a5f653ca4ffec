"""One beat for all that a process does every so often, so that it wakes once and not once for each.

A peer has a dozen such things, from ten times a second to once in ten. Waking costs more than most
of them do. Between processes of one machine the beats are apart.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

BEAT_MS: Final = 100  # periods are multiples of it
_PHASES: Final = 10_000
_PRIME: Final = 7_919  # neighbours in number are far apart in phase
_PHASE_MS: Final = os.getpid() * _PRIME % _PHASES
_NEAR: Final = 10  # a beat that is this part of a period away is the one that just was


def until_beat(period_s: float) -> float:
    """What to sleep now, in seconds, to wake with whoever else has this period, or a part or a
    multiple of it: up to 1.1 periods. Call it inside a running loop."""
    period_ms = round(period_s * 1000)
    now_ms = asyncio.get_running_loop().time() * 1000 - _PHASE_MS
    left_ms = period_ms - now_ms % period_ms
    if left_ms * _NEAR < period_ms:
        left_ms += period_ms
    return left_ms / 1000

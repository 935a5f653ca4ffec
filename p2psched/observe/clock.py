"""Adapter of port `Clock` over the machine's clocks.

`now_ms` is boot time: it never runs backwards and also counts while the machine sleeps, so a
laptop that wakes knows that its leases are over. `wall_ms` is the one place where the package
reads a wall clock; nothing is decided by it.
"""

from __future__ import annotations

import time

_NS_PER_MS = 1_000_000


class BootClock:
    """The real clock of a peer."""

    def now_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _NS_PER_MS

    def wall_ms(self) -> int:
        return time.time_ns() // _NS_PER_MS

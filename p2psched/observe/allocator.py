"""Memory that the C library keeps although nothing is in it: back to the system, after a burst.

Its pages stay with the process, for the next burst would need them. After one that has ended they
are half a MiB, on a machine with many peers half a MiB each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

BUSY_SHARE: Final = 0.03  # of a core: beyond it a process is in a burst; an idle peer takes 0.01


class Bursts:
    """Told how much CPU the process has taken, it says when a burst is over. It begins in one."""

    def __init__(self, now_s: float, spent_s: float) -> None:
        self._now_s, self._spent_s = now_s, spent_s
        self._is_busy = True

    def is_over(self, now_s: float, spent_s: float) -> bool:
        """True once after each. All in seconds; `spent_s` since its start."""
        share = (spent_s - self._spent_s) / max(now_s - self._now_s, 1e-9)
        self._now_s, self._spent_s = now_s, spent_s
        was_busy, self._is_busy = self._is_busy, share >= BUSY_SHARE
        return was_busy and not self._is_busy


def trimmer() -> Callable[[], None] | None:
    """Gives back what is free, which takes a fraction of a millisecond for each 10 MiB in use. None
    where the C library can't."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    return lambda: trim(ctypes.c_size_t(0))

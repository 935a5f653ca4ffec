"""How fast a counter rises, of late."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_MS: Final = 60_000


class Rate:
    """Of one counter, over the last minute."""

    def __init__(self) -> None:
        self._noted: deque[tuple[int, int]] = deque()  # times and counts, as old as the window

    def note(self, now_ms: int, count: int) -> None:
        """About once a second."""
        self._noted.append((now_ms, count))
        while len(self._noted) > 2 and self._noted[1][0] <= now_ms - WINDOW_MS:
            self._noted.popleft()

    def per_s(self, now_ms: int, count: int) -> float:
        """0 as long as nothing was noted."""
        if not self._noted:
            return 0.0
        since_ms, before = self._noted[0]
        return (count - before) * 1000 / (now_ms - since_ms) if now_ms > since_ms else 0.0

"""How late the event loop is: the one figure that tells whether handlers keep their promise.

A timer every 100 ms, every 500 while all is quiet, notes how much later than due it ran. It refuses
to say why; a handler that blocks, a starved machine and a stopped process look the same. Memory is
bounded by one minute of samples.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.observe.beat import until_beat

PERIOD_S: Final = 0.1
SELDOM_S: Final = 0.5
WINDOW_S: Final = 60.0
SAMPLES_MAX: Final = 600  # WINDOW_S / PERIOD_S

_MS_PER_S: Final = 1000.0


class LoopLateness:
    """Run `run` in a task group; read the figures at any time (0 before the first sample).

    `monotonic` gives seconds, not `loop.time`: uvloop's stands still within one turn of the loop.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        until_next: Callable[[float], float] = until_beat,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._until_next = until_next
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES_MAX)  # (when, late_s)

    async def run(self, is_quiet: Callable[[], bool] = lambda: False) -> None:
        """Measure until cancelled."""
        while True:
            wait_s = self._until_next(SELDOM_S if is_quiet() else PERIOD_S)
            due = self._monotonic() + wait_s
            await self._sleep(wait_s)
            now = self._monotonic()
            self._samples.append((now, max(0.0, now - due)))

    @property
    def p99_ms(self) -> float:
        """99 of 100 turns of the last minute were at most this late. O(samples)."""
        late = sorted(self._recent())
        return late[(len(late) - 1) * 99 // 100] * _MS_PER_S if late else 0.0

    @property
    def max_ms(self) -> float:
        """The latest turn of the last minute."""
        return max(self._recent(), default=0.0) * _MS_PER_S

    def _recent(self) -> list[float]:
        oldest = self._monotonic() - WINDOW_S
        return [late for when, late in self._samples if when >= oldest]

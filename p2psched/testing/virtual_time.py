"""An event loop whose clock jumps: what waits for time takes none.

For tests of loops that have no real sockets or processes: when nothing is ready to run, the clock
goes on to the next timer at once. Order stays that of time, so a run repeats exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """As the standard loop, starting at second 0. Threads and sockets don't stop the clock: don't
    wait for them here."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        """The one place of the standard loop where it would sleep."""
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]  # of the base class
            self._now_s = max(self._now_s, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]  # of the base class


def run_virtually(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)

"""The pauses of who looks at its clock every so often, and seldom while all is quiet."""

from __future__ import annotations

import asyncio

from p2psched.observe.beat import until_beat


class Pauses:
    """Of one task: nobody else waits."""

    def __init__(self, period_s: float) -> None:
        """A multiple of the beat."""
        self._period_s = period_s
        self._end: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_long = False

    async def wait(self, seldom_s: float | None = None) -> None:
        """For a period; `seldom_s`: for a longer one, which `stir` makes an ordinary one."""
        loop = asyncio.get_running_loop()
        self._end, self.is_long = loop.create_future(), seldom_s is not None
        self._arm(self._period_s if seldom_s is None else seldom_s)
        try:
            await self._end
        finally:
            self.is_long = False
            if self._timer is not None:
                self._timer.cancel()

    def stir(self) -> None:
        """Something has come. Cheap: asked each turn."""
        if self.is_long:
            self.is_long = False
            assert self._timer is not None
            self._timer.cancel()
            self._arm(self._period_s)

    def _arm(self, period_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(until_beat(period_s), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self.is_long = None, False  # over, though who waits has yet to wake
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

"""How a client keeps to the time that a busy peer names.

Whatever brings the cluster new work waits for it, also what was not refused itself: it would be.
Each waits a little longer than it was told, and not all equally long, so that they don't come back
at once.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from p2psched.model.act_messages import Do
from p2psched.model.errors import Busy
from p2psched.model.messages import CallBody, Submit

BRINGS_WORK: Final = (Submit, Do)


class Holdback:
    """Of one session, in its event loop."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._until_s = 0.0
        self._retry_s = 0.0

    def note(self, error: Busy, now_s: float) -> None:
        self._retry_s = error.retry_after_s
        self._until_s = max(self._until_s, now_s + error.retry_after_s)

    def holds(self, body: CallBody, now_s: float) -> bool:
        return now_s < self._until_s and isinstance(body, BRINGS_WORK)

    async def back(self, error: Busy, deadline_s: float) -> None:
        """A call was told to come back later. Raises the error if that is after its deadline."""
        now_s = asyncio.get_running_loop().time()
        self.note(error, now_s)
        pause_s = error.retry_after_s + self._rng.uniform(0, error.retry_after_s)
        if now_s + pause_s >= deadline_s:
            raise error
        await asyncio.sleep(pause_s)

    async def wait(self, body: CallBody, deadline_s: float) -> None:
        """Until it may be asked, or its patience is over: then it is asked all the same."""
        loop = asyncio.get_running_loop()
        while self.holds(body, now_s := loop.time()) and now_s < deadline_s:
            until_s = self._until_s + self._rng.uniform(0, self._retry_s)
            await asyncio.sleep(min(until_s, deadline_s) - now_s)

"""A peer whose battery runs low drains itself, so that what runs there can go on elsewhere.

Only without mains, and only if nobody has drained or cordoned it before; once it is plugged in
again, or charged, it takes tasks again. The drain ends by itself at its next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from p2psched.core.state import LedgerState
from p2psched.model.commands import Drain, DrainMode
from p2psched.model.ids import PeerId

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
ENOUGH_MORE: Final = 5  # per cent above the least: or it would come and go


class Battery:
    """`read`: per cent (-1: there is none), and whether it is plugged in."""

    def __init__(
        self,
        me: PeerId,
        state: LedgerState,
        *,
        least: int,
        read: Callable[[], tuple[int, bool]],
        propose: Callable[[Drain], object],
    ) -> None:
        self._me = me
        self._state = state
        self._least = least
        self._read = read
        self._propose = propose
        self._drained = False  # by us

    async def run(self) -> None:
        while self._least:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        row = self._state.peers.get(self._me)
        if row is None:
            return
        percent, is_plugged = self._read()
        is_low = 0 <= percent < self._least and not is_plugged
        if is_low and row.drain is DrainMode.OFF:
            log.warning("battery-low", extra={"percent": percent, "least": self._least})
            self._drained = True
            self._propose(Drain(self._me, DrainMode.ONCE))
        elif self._drained and not is_low and (is_plugged or percent >= self._least + ENOUGH_MORE):
            self._drained = False
            if row.drain is DrainMode.ONCE:
                log.info("battery-enough", extra={"percent": percent})
                self._propose(Drain(self._me, DrainMode.OFF))

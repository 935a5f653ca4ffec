"""How a peer that holds the ledger stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib

from p2psched.model.errors import Unavailable
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.separation import SeparationKeeper
from p2psched.ports.engine import Engine


async def leave(
    scheduling: SchedulerLoop, ledger: Engine, separation: SeparationKeeper, patience_s: float
) -> None:
    """Give back the tasks, then the lead, each for so long at most."""
    with contextlib.suppress(TimeoutError, Unavailable):
        async with asyncio.timeout(patience_s):
            await scheduling.leave()
            separation.forget_owned()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await ledger.hand_over()

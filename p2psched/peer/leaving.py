"""How a peer that holds the ledger stops cleanly."""

from __future__ import annotations

import asyncio
import contextlib

from p2psched.model.config import Config
from p2psched.model.errors import Unavailable
from p2psched.peer.large_data import LargeData
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.separation import SeparationKeeper
from p2psched.ports.engine import Engine


async def leave(
    scheduling: SchedulerLoop,
    ledger: Engine,
    separation: SeparationKeeper,
    data: LargeData,
    config: Config,
) -> None:
    """Bring checkpoints elsewhere, give back the tasks, then the lead; none takes for ever."""
    patience_s = config.leave_ms / 1000
    with contextlib.suppress(TimeoutError, Unavailable):
        async with asyncio.timeout(patience_s):
            await data.checkpoints.leave(patience_s / 2)
            await scheduling.leave()
            separation.forget_owned()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await ledger.hand_over()

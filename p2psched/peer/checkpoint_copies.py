"""Copies of checkpoints on one more peer: in the background, within a budget, the newest first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Final

from p2psched.core.copies import ranked
from p2psched.core.resuming import Budget
from p2psched.model.checkpoints import Head
from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import PeerId
from p2psched.peer.blobs import Threads
from p2psched.peer.checkpoint_run import Run
from p2psched.peer.checkpoint_ways import CheckpointWays
from p2psched.ports.clock import Clock
from p2psched.store.checkpoints import CheckpointFiles

log = logging.getLogger(__name__)

COPY_AGAIN_S: Final = 5.0
LAST_TRIES_MAX: Final = 3
LAST_AGAIN_S: Final = 0.5
TARGETS_MAX: Final = 3  # peers that are tried for one copy


class CheckpointCopies:
    """`keep` one for each task that runs."""

    def __init__(
        self,
        files: CheckpointFiles,
        ways: CheckpointWays,
        *,
        me: PeerId,
        threads: Threads,
        clock: Clock,
        budget: int,
    ) -> None:
        """`budget`: bytes a minute."""
        self._files = files
        self._ways = ways
        self._me = me
        self._threads = threads
        self._clock = clock
        self._budget = Budget(budget, clock.now_ms())
        self.takers: Callable[[], Iterable[PeerId]] = tuple  # who may have one
        self.copied = self.skipped = 0

    async def keep(self, run: Run) -> None:
        """The newest, again and again, until it is over and its last one is elsewhere."""
        try:
            await self._keep(run)
        finally:
            self._budget.leave(run.batch.id)

    async def _keep(self, run: Run) -> None:
        again_s: float | None = None
        tries = LAST_TRIES_MAX
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await run.saved.wait()
            run.saved.clear()
            again_s = await self._copy_newest(run)
            if run.taken and not run.saved.is_set():
                tries -= 1
                if again_s is None or not tries:
                    return  # if nobody takes it, its next attempt finds it here
                again_s = LAST_AGAIN_S

    async def _copy_newest(self, run: Run) -> float | None:
        """Seconds until it should be tried again; None if the newest is elsewhere."""
        job, task = run.batch.job, run.task
        key = run.newest = await self._threads.quick(self._files.newest_key, job, task)
        is_there = key is None or key == run.copied
        if is_there or run.over:
            self._budget.leave(run.batch.id)
        if is_there:
            return None
        if not run.over:
            wait_ms = self._budget.wait_ms(self._clock.now_ms(), run.batch.id)
            if wait_ms != 0:
                return COPY_AGAIN_S if wait_ms is None else wait_ms / 1000
        heads = await self._threads.quick(self._files.saved, job, task)
        if not heads:
            return None
        return None if await self._copy(run, heads[0]) else COPY_AGAIN_S

    async def _copy(self, run: Run, head: Head) -> bool:
        for peer in self._targets(run)[:TARGETS_MAX]:
            try:
                await self._ways.copy_to(head, peer)
            except P2PSchedError as error:
                log.info("checkpoint-not-copied", extra={"peer": peer, "error": str(error)})
                continue
            self._budget.spend(head.file_bytes, self._clock.now_ms())
            if run.copied is not None and run.copied[0] == head.grant:
                self.skipped += max(0, head.number - run.copied[1] - 1)
            self.copied += 1
            run.copied, run.holder = head.key, peer
            return True
        return False

    def _targets(self, run: Run) -> list[PeerId]:
        """Who may hold it, best first: who holds the one before, so that there is one place more
        and not many."""
        name = f"{run.batch.job}/{run.task}".encode()
        takers = [peer for peer in self.takers() if peer != self._me]
        return sorted(ranked(name, takers), key=lambda peer: peer != run.holder)

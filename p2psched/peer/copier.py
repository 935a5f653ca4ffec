"""Copies of large results: made before the results are told, on as many disks as the job asks for.

A peer that does not answer, or is declared down meanwhile, is left for another; if there is none,
the result goes with fewer copies, and the keeper makes up for it later. Nothing here decides who
owns what: an answer that comes too late is judged by its grant like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from p2psched.core.copies import live_peers, ranked
from p2psched.core.owner import CopyBlobs
from p2psched.core.state import LedgerState
from p2psched.model.blob import BlobRef, ResultBlob, wait_s
from p2psched.model.blob_messages import CopyBlob
from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import PeerId
from p2psched.observe.beat import until_beat
from p2psched.peer.others import Others

log = logging.getLogger(__name__)

COPIES_AT_ONCE_MAX: Final = 16  # further ones wait
PATIENCE_S: Final = 10.0  # for a small one; a larger one may take as long as a slow link needs
WATCH_S: Final = 0.2  # between two looks at who is still there

OnCopied = Callable[[int, tuple[ResultBlob, ...]], None]


class Copier:
    """`start` what the scheduler wants copied while `run` runs; `on_copied` follows for each."""

    def __init__(
        self, *, me: PeerId, state: LedgerState, others: Others, on_copied: OnCopied
    ) -> None:
        self._me = me
        self._state = state
        self._others = others
        self._on_copied = on_copied
        self._group: asyncio.TaskGroup | None = None
        self._places = asyncio.Semaphore(COPIES_AT_ONCE_MAX)
        self._open: dict[asyncio.Timeout, PeerId] = {}
        self._opened = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:  # a frozen peer keeps its connection: whoever is down is not waited for
                if not self._open:
                    self._opened.clear()
                    await self._opened.wait()
                await asyncio.sleep(until_beat(WATCH_S))
                now = asyncio.get_running_loop().time()
                for deadline, peer in self._open.items():
                    if not self._state.is_up(peer) and not deadline.expired():
                        deadline.reschedule(now)

    def start(self, effect: CopyBlobs) -> None:
        if self._group is not None:  # else this peer is stopping: its tasks run elsewhere
            self._group.create_task(self._copy_all(effect))

    async def _copy_all(self, effect: CopyBlobs) -> None:
        async with asyncio.TaskGroup() as group:
            copying = [group.create_task(self._copy(blob, effect.copies)) for blob in effect.blobs]
        self._on_copied(effect.number, tuple(task.result() for task in copying))

    async def _copy(self, blob: ResultBlob, copies: int) -> ResultBlob:
        holders = [self._me]
        async with self._places:
            others = [peer for peer in live_peers(self._state) if peer != self._me]
            for peer in ranked(blob.ref.digest, others):
                if len(holders) >= copies:
                    break
                if await self._copy_to(peer, blob.ref):
                    holders.append(peer)
        if len(holders) < copies:
            log.info("copies-short", extra={"blob": str(blob.ref), "copies": len(holders)})
        return ResultBlob(blob.index, blob.name, blob.ref, tuple(sorted(holders)))

    async def _copy_to(self, peer: PeerId, ref: BlobRef) -> bool:
        """True once the blob is durable there."""
        with contextlib.suppress(TimeoutError, P2PSchedError):
            async with asyncio.timeout(PATIENCE_S + wait_s(ref.size)) as deadline:
                self._open[deadline] = peer
                self._opened.set()
                try:
                    await self._others.call(peer, CopyBlob(ref, self._me))
                finally:
                    del self._open[deadline]
                return True
        log.warning("copy-failed", extra={"blob": str(ref), "peer": peer})
        return False

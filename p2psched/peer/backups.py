"""What a peer does for a backup: it makes a snapshot of what a majority has committed, and reads it
out. Everything else of a backup comes by the calls that all clients use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.model.backup_messages import BackupBegun, BeginBackup, ReadState, StateRead
from p2psched.model.errors import Unavailable, UsageError
from p2psched.model.ids import ClusterId
from p2psched.model.limits import KIB
from p2psched.peer.engines import embedded
from p2psched.peer.raft_loop import RaftLedger
from p2psched.ports.engine import Engine

PART_BYTES_MAX: Final = 512 * KIB
SNAPSHOT_S: Final = 300.0  # for a state of any size, on a slow disk


class Backups:
    """A part of the API, see `peer.api`."""

    def __init__(
        self,
        ledger: Engine,
        linearize: Callable[[], Awaitable[None]],
        *,
        cluster: ClusterId,
        name: str,
    ) -> None:
        self._ledger = ledger
        self._linearize = linearize
        self._cluster = cluster
        self._name = name

    @property
    def _embedded(self) -> RaftLedger:
        return embedded(self._ledger, "makes no snapshots that a backup could begin with")

    async def answer(self, body: BeginBackup | ReadState) -> BackupBegun | StateRead:
        match body:
            case BeginBackup():
                return await self._begin()
            case ReadState():
                return await self._read(body)

    async def _begin(self) -> BackupBegun:
        await self._linearize()
        try:
            async with asyncio.timeout(SNAPSHOT_S):
                snapshot = await self._embedded.make_snapshot()
        except TimeoutError as exc:
            raise Unavailable(
                f"the snapshot is not made after {SNAPSHOT_S:.0f} s: try again, or another peer"
            ) from exc
        if snapshot is None:
            raise Unavailable("this peer takes a snapshot from its leader just now")
        return BackupBegun(snapshot, self._cluster, self._name)

    async def _read(self, body: ReadState) -> StateRead:
        if not (body.offset >= 0 and 0 < body.size <= PART_BYTES_MAX):
            raise UsageError(f"a part of a state has 1 to {PART_BYTES_MAX:,} bytes")
        files = self._embedded.store.snapshots
        read = files.read_piece
        data = await asyncio.to_thread(read, body.snapshot, body.offset, body.size)
        return StateRead(data)

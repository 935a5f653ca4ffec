"""What this machine is told of a peer: a record for local commands, and once that it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from p2psched.core.state import LedgerState
from p2psched.model.commands import PeerInfo
from p2psched.model.config import Config
from p2psched.peer.cluster import Belonging, record_of
from p2psched.ports.clock import Clock
from p2psched.store.folder import DataFolder
from p2psched.store.records import remove_record, write_record


class Ready(msgspec.Struct, frozen=True):
    """What `start` prints once the ledger knows of us."""

    info: PeerInfo
    cluster: str
    secret_path: str
    founded: bool
    group: tuple[str, ...] = ()  # of a raftos ledger


class Announcing:
    """Of one process, whose peer may follow first and be a member later."""

    def __init__(
        self,
        config: Config,
        folder: DataFolder,
        belonging: Belonging,
        *,
        clock: Clock,
        on_ready: Callable[[Ready], None],
    ) -> None:
        self._config = config
        self._folder = folder
        self._belonging = belonging
        self._clock = clock
        self._on_ready = on_ready
        self._is_ready = False

    async def leave_record(self, info: PeerInfo) -> None:
        wall_ms = self._clock.wall_ms()
        record = record_of(info, self._folder, self._config, self._belonging, wall_ms)
        await asyncio.to_thread(write_record, Path(self._config.runtime_dir), record)

    async def announce(self, info: PeerInfo, state: LedgerState) -> None:
        """Leave a record, and say when the ledger knows of us."""
        await self.leave_record(info)
        while True:
            row = state.peers.get(info.peer)
            if row is not None and row.live and row.info.incarnation >= info.incarnation:
                break
            await asyncio.sleep(0.02)
        self.ready(info)

    def remove_record(self) -> None:
        remove_record(Path(self._config.runtime_dir), self._folder.identity.peer)

    def ready(self, info: PeerInfo) -> None:
        """The ledger knows of us. A second time says nothing."""
        if self._is_ready:
            return
        self._is_ready = True
        belonging, secret = self._belonging, str(self._folder.secret_path)
        self._on_ready(Ready(info, belonging.cluster, secret, belonging.founds, belonging.group))

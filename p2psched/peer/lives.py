"""A peer from its folder on: what all of it needs, and which life it has.

A peer that holds no ledger has one as a follower (`peer.following`). One that does, and a follower
that the group needs, has one as a `Node`. What only that needs, all of Raft and of placing, is half
of our code: a follower loads it when it is to be one, and not before (ADR 0067).
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from p2psched.model import version
from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError
from p2psched.model.status_messages import StatusAnswer
from p2psched.net.auth import Identity
from p2psched.net.server import Server
from p2psched.observe.clock import BootClock
from p2psched.peer.announcing import Announcing, Ready
from p2psched.peer.cluster import Belonging, check_start, find_cluster
from p2psched.peer.doors import Doors
from p2psched.peer.failures import failure_of
from p2psched.peer.following import Life
from p2psched.peer.gossip import Gossip
from p2psched.peer.loads import Loads
from p2psched.peer.space import open_folder
from p2psched.store.disk import OsDisk
from p2psched.store.folder import DataFolder

if TYPE_CHECKING:
    from p2psched.peer.node import Node

log = logging.getLogger(__name__)


class Lives:
    """Make one, `run` it once. `stop` may be called from the same loop at any time."""

    def __init__(self, config: Config, *, on_ready: Callable[[Ready], None]) -> None:
        self._config = config
        self._on_ready = on_ready
        self._clock = BootClock()
        self._started_ms = self._clock.now_ms()
        self._stop = asyncio.Event()
        self._failure: P2PSchedError | None = None
        self._life: Life | Node | None = None
        self._is_other_version = False

    def stop(self) -> None:
        """Leave cleanly: tasks go back to the ledger, processes end, files are closed."""
        self._stop.set()

    def _on_failed(self, error: BaseException) -> None:
        failure = failure_of(error)
        if self._failure is None:
            self._failure = failure
        self._stop.set()

    async def run(self) -> None:
        """Raises P2PSchedError if the peer can't start, or must not go on."""
        config = self._config
        address = await asyncio.to_thread(check_start, config)
        folder, self._space = await asyncio.to_thread(open_folder, config)
        with folder:
            belonging = await find_cluster(config, folder, random.SystemRandom())
            self._announcing = Announcing(
                config, folder, belonging, clock=self._clock, on_ready=self._on_ready
            )
            doors = Doors()
            identity = Identity(peer=folder.identity.peer, cluster=belonging.cluster)
            secret, handlers = belonging.secret, doors.handlers
            server = Server(address, identity=identity, secret=secret, handlers=handlers)
            await server.start()
            doors.gossip = self._gossip = Gossip(identity, secret, config, self._clock)
            self._loads = Loads.of(folder, self._gossip, self._clock, config.battery_min)
            try:
                await self._gossip.open(None if belonging.group else server.address)
                if await self._is_whole(folder, belonging, server, doors):
                    await self._hold(folder, belonging, server, doors)
            finally:
                self._gossip.close()
                await server.close()
        if self._failure is not None:
            raise self._failure

    async def _is_whole(
        self, folder: DataFolder, belonging: Belonging, server: Server, doors: Doors
    ) -> bool:
        """False after a life as a follower."""
        if belonging.founds or belonging.group or not await asyncio.to_thread(may_follow, folder):
            return True
        life = Life(
            *(self._config, folder, self._space, belonging, server),
            clock=self._clock,
            stop=self._stop,
            on_failed=self._on_failed,
            announcing=self._announcing,
            gossip=self._gossip,
            loads=self._loads,
            can_hold=self._can_hold,
        )
        doors.to, self._life = life.handlers, life
        is_whole = await life.run(self._config.advertise or str(server.address))
        doors.to = self._life = None
        return is_whole

    async def _hold(
        self, folder: DataFolder, belonging: Belonging, server: Server, doors: Doors
    ) -> None:
        node = (await asyncio.to_thread(_load_node))(
            *(self._config, folder, self._space, belonging, server),
            clock=self._clock,
            started_ms=self._started_ms,
            stop=self._stop,
            on_failed=self._on_failed,
            announcing=self._announcing,
            gossip=self._gossip,
            loads=self._loads,
            doors=doors.handlers,
        )
        doors.to, self._life = node.handlers, node
        await node.run()

    async def _can_hold(self) -> bool:
        """Load what a holder of the ledger needs. False if the files are by now another version's,
        of an upgrade: half a peer of each would be worse than a group that stays small until this
        one is started again."""
        return await asyncio.to_thread(self._load_ours)

    def _load_ours(self) -> bool:
        found = version_in(Path(version.__file__))
        if found == version.VERSION:
            _load_node()
        elif not self._is_other_version:
            self._is_other_version = True
            log.warning("stays-a-follower", extra={"runs": version.VERSION, "on_disk": found})
        return found == version.VERSION

    def status(self) -> StatusAnswer:
        """Once it is ready. From the loop of `run` only."""
        assert self._life is not None
        return self._life.status()


def _load_node() -> type[Node]:
    """Blocks, for some tenths of a second at the first time."""
    from p2psched.peer.node import Node  # noqa: PLC0415 (see above)

    return Node


def version_in(path: Path) -> str:
    """What a file that is like `model/version.py` says; empty if it is gone, or is no such file."""
    spec = importlib.util.spec_from_file_location("_version_on_disk", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (OSError, SyntaxError):
        return ""
    return str(getattr(module, "VERSION", ""))


def may_follow(folder: DataFolder) -> bool:
    """True if this peer never had a ledger: who has one keeps it, and who has lost it is told so
    by `ledger_files.open_log`."""
    is_new = folder.identity.incarnation == 0 or folder.following.is_set
    return is_new and not OsDisk(folder.ledger_path).names()

"""A peer inside an asyncio program.

    config = Config(name="gateway-7", data="/var/lib/gateway/peer", join=["127.0.0.1:7420"])
    async with Peer(config) as peer:
        print(await peer.submit(score, window))

The peer lives in a thread of its own (`thread.py`), so it keeps its promises to the cluster while
the host's loop is busy or blocked; everything here runs in the host's loop and only asks it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Final, ParamSpec, TypeVar, overload

from p2psched.client.client import Client
from p2psched.client.futures import Task
from p2psched.client.options import HasOptions, unwrap
from p2psched.client.session import PATIENCE_S
from p2psched.embed.config import Config
from p2psched.embed.thread import PeerThread
from p2psched.model.errors import P2PSchedError, UsageError
from p2psched.model.ids import PeerId
from p2psched.model.status_messages import StatusAnswer
from p2psched.peer.announcing import Ready
from p2psched.store.folder import read_secret_file

P = ParamSpec("P")
T = TypeVar("T")

_NOT_ENTERED: Final = "use the peer as `async with Peer(...) as peer`"


class _OwnClient(Client):
    """A client of a peer whose secret is at hand: no records are searched, no thread is used."""

    def __init__(self, ready: Ready, *, patience_s: float) -> None:
        super().__init__(ready.info.address, patience_s=patience_s)
        self._ready = ready

    async def _locate(self) -> tuple[list[str], bytes]:
        return [self._ready.info.address], read_secret_file(Path(self._ready.secret_path))


class Peer:
    """Enter it once. Entering returns when the cluster knows the peer, which on a restart takes a
    majority of its voters: the caller owns the deadline, and a cancelled start leaves nothing.

    A peer that fails by itself does not touch its host: `failed` tells, and leaving the block
    raises its error unless `failed` has handed it over or the block raises another.
    """

    def __init__(self, config: Config, *, patience_s: float = PATIENCE_S) -> None:
        """`patience_s` is that of `client`. Raises UsageError for a configuration that can't be."""
        self._thread = PeerThread(config.complete())
        self._patience_s = patience_s
        self._process = os.getpid()
        self._ready: Ready | None = None
        self._client: Client | None = None
        self._entered = False
        self._told = False

    async def __aenter__(self) -> Peer:
        """Raises P2PSchedError if the peer can't start."""
        if self._entered:
            raise UsageError("a Peer is entered once: make a new one to start it again")
        self._entered = True
        self._thread.start()
        try:
            self._ready = await _result(self._thread.started)
            self._client = _OwnClient(self._ready, patience_s=self._patience_s)
            await self._client.__aenter__()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.client.__aexit__(kind, error, trace)
        finally:
            failure = await self._end()
        if failure is not None and kind is None and not self._told:
            raise failure

    async def _end(self) -> P2PSchedError | None:
        """Stop the peer and wait until thread, processes and files are gone. The wait is bounded by
        the peer itself, so being cancelled does not cut it short: it is raised afterwards."""
        self._thread.stop()
        cancelled: asyncio.CancelledError | None = None
        while not self._thread.ended.done():
            try:
                await asyncio.wait([asyncio.wrap_future(self._thread.ended)])
            except asyncio.CancelledError as error:
                cancelled = error
        self._thread.join()
        if cancelled is not None:
            raise cancelled
        return self._thread.ended.result()

    # --- who it is --------------------------------------------------------------------------------

    def _is_ready(self) -> Ready:
        if self._ready is None:
            raise UsageError(_NOT_ENTERED)
        if os.getpid() != self._process:
            raise UsageError("this is a fork of the program: the peer lives in its parent alone")
        return self._ready

    @property
    def id(self) -> PeerId:
        return self._is_ready().info.peer

    @property
    def name(self) -> str:
        return self._is_ready().info.name

    @property
    def address(self) -> str:
        """Where other peers and clients reach it, host:port."""
        return self._is_ready().info.address

    @property
    def secret_path(self) -> Path:
        """What another machine needs a copy of to join through this peer."""
        return Path(self._is_ready().secret_path)

    @property
    def founded(self) -> bool:
        """True if this start made a new cluster, of which this peer is the voter."""
        return self._is_ready().founded

    async def status(self) -> StatusAnswer:
        """The peer's own view, also without a quorum; `quorum` says whether there is one. Raises
        Unavailable once the peer has ended."""
        self._is_ready()
        return await _result(self._thread.status())

    async def failed(self) -> P2PSchedError | None:
        """Waits until the peer ends without being asked to by this program, and says why. None if
        the block was left."""
        self._is_ready()
        error = await _result(self._thread.ended)
        self._told = error is not None
        return error

    # --- work -------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """Bound to the host's loop. It starts with this peer, and turns to others if it fails."""
        self._is_ready()
        assert self._client is not None
        return self._client

    @overload
    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]: ...

    @overload
    def submit(
        self, function: str | HasOptions, /, *args: object, **kwargs: object
    ) -> Task[object]: ...

    def submit(
        self, function: Callable[P, T] | str | HasOptions, /, *args: object, **kwargs: object
    ) -> Task[T] | Task[object]:
        """`function(*args, **kwargs)`, run by any peer of the cluster: `await` it for the value. As
        `client.submit`."""
        called, options = unwrap(function)
        return Task(self.client.pipeline, called, options, (args, kwargs))


async def _result(future: Future[T]) -> T:
    """The result of a future of the peer's thread, in the host's loop."""
    return await asyncio.wrap_future(future)

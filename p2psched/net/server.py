"""Listening: connections that others open to this peer.

It refuses more than CONNECTIONS_MAX known sides, and more than CONNECTIONS_PER_PEER_MAX of one peer
(the oldest goes). Connections that have not proved the secret yet are counted apart, and beyond
HALF_OPEN_MAX the oldest of them goes: who merely opens sockets takes no place from who knows the
secret. No fault of one connection reaches another.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Final

from p2psched.model.errors import P2PSchedError, Refused, Unavailable, UsageError
from p2psched.model.limits import CONNECTIONS_MAX
from p2psched.model.opening_messages import Goodbye
from p2psched.net.address import Address, parse
from p2psched.net.auth import Identity, ServerOpening
from p2psched.net.link import Connection, Handlers
from p2psched.net.sockets import listening_at
from p2psched.net.turns import Turns

log = logging.getLogger(__name__)

HALF_OPEN_MAX: Final = 256
CONNECTIONS_PER_PEER_MAX: Final = 8
_ACCEPT_BACKLOG: Final = 1024
_STOPPING: Final = Goodbye(code=Unavailable.code, message="this peer is stopping")


class Server:
    """Accepts connections from `start` to `close`.

    `identity` may be replaced while it runs, as when the cluster or the port becomes known:
    connections that come later open with the new one.
    """

    def __init__(
        self, address: Address | str, *, identity: Identity, secret: bytes, handlers: Handlers
    ) -> None:
        self.identity = identity
        self._address = parse(address) if isinstance(address, str) else address
        self._secret = secret
        self._handlers = handlers
        self._listener: asyncio.Server | None = None
        self._stopping = False
        # Dicts, because they keep the order of arrival.
        self.turns: Final = Turns()
        self._half_open: dict[Connection, None] = {}
        self._open: dict[Connection, None] = {}
        self.refused_count = 0

    @property
    def address(self) -> Address:
        """Where it listens; after `start` with the port that it really got."""
        return self._address

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that proved the secret, oldest first."""
        return tuple(self._open)

    @property
    def half_open_count(self) -> int:
        return len(self._half_open)

    async def start(self) -> None:
        """Listen. Raises Refused if the port is taken, UsageError if the address can't be used."""
        assert self._listener is None
        host, port = self._address.host, self._address.port
        loop = asyncio.get_running_loop()
        try:
            sock = listening_at(host, port, backlog=_ACCEPT_BACKLOG)
            self._listener = await (
                loop.create_server(self._accept, host, port, backlog=_ACCEPT_BACKLOG)
                if sock is None
                else loop.create_server(self._accept, sock=sock, backlog=_ACCEPT_BACKLOG)
            )
        except OSError as error:
            raise _listen_error(self._address, error) from error
        bound = self._listener.sockets[0].getsockname()
        self._address = Address(host, int(bound[1]))
        log.info("listening", extra={"address": str(self._address)})

    async def run(self) -> None:
        """`start`, serve until cancelled, `close`."""
        await self.start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    def say_goodbye(self) -> None:
        """Stop listening, and let go of every connection: callers turn to others at once."""
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in self._half_open:
            connection.abort()
        for connection in self._open:
            connection.close(goodbye=_STOPPING)

    async def close(self) -> None:
        """Say goodbye, and wait (bounded) until every connection is gone."""
        self.say_goodbye()
        for connection in (*self._half_open, *self._open):
            await connection.wait_closed()

    # --- what connections ask of their server -----------------------------------------------------

    def on_made(self, connection: Connection) -> None:
        self._half_open[connection] = None
        if self._stopping:  # accepted before `close`, made after it
            connection.abort()
            return
        if len(self._half_open) > HALF_OPEN_MAX:
            oldest = next(iter(self._half_open))
            del self._half_open[oldest]
            self._refuse(oldest, "too many connections that did not open")
            oldest.abort()

    def admit(self, connection: Connection, remote: Identity) -> Unavailable | None:
        self._half_open.pop(connection, None)
        if len(self._open) >= CONNECTIONS_MAX:
            self._refuse(connection, "too many connections")
            return Unavailable(
                f"this peer serves {CONNECTIONS_MAX} connections already: "
                "try another peer, or again later"
            )
        if remote.peer is not None:
            same = [other for other in self._open if other.peer == remote.peer]
            if len(same) >= CONNECTIONS_PER_PEER_MAX:
                self._refuse(same[0], "too many connections of one peer")
                same[0].close()
        self._open[connection] = None
        return None

    def on_lost(self, connection: Connection) -> None:
        self._half_open.pop(connection, None)
        self._open.pop(connection, None)

    # --- inside -----------------------------------------------------------------------------------

    def _accept(self) -> Connection:
        return Connection(ServerOpening(self.identity, self._secret), self._handlers, gate=self)

    def _refuse(self, connection: Connection, reason: str) -> None:
        self.refused_count += 1
        log.warning("connection-refused", extra={"address": connection.address, "reason": reason})


def _listen_error(address: Address, error: OSError) -> P2PSchedError:
    if isinstance(error, socket.gaierror):
        return UsageError(
            f"no address found for host {address.host!r}: check its spelling, "
            "or use an IP address of this machine"
        )
    match error.errno:
        case errno.EADDRINUSE:
            return Refused(f"{address} is in use by another process: choose another --listen")
        case errno.EACCES | errno.EPERM:
            return UsageError(
                f"port {address.port} is reserved by the system: "
                "choose another --listen, with a port from 1024 on"
            )
        case errno.EADDRNOTAVAIL:
            return UsageError(
                f"{address.host} is no address of this machine: choose another --listen"
            )
        case _:
            return UsageError(f"cannot listen on {address}: {error.strerror or error}")

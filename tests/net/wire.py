"""One secret, two peers, and servers that answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import ClusterId, PeerId, new_id
from p2psched.model.messages import Answer, Call, Done, PeerMessage
from p2psched.net.auth import Identity
from p2psched.net.link import Connection, Handlers
from p2psched.net.server import Server

SECRET = b"s" * 32
CLUSTER = ClusterId("c" * 32)
PEER_A = PeerId("a" * 32)
PEER_B = PeerId("b" * 32)
A = Identity(peer=PEER_A, address="127.0.0.1:1", cluster=CLUSTER)
B = Identity(peer=PEER_B, address="127.0.0.1:2", cluster=CLUSTER)
CLIENT = Identity()


class Recorder:
    """Handlers that keep what they get and answer every call with `Done`."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.messages: list[PeerMessage | Call] = []
        self.closed: list[tuple[Connection, P2PSchedError | None]] = []
        self._changed = asyncio.Event()

    @property
    def handlers(self) -> Handlers:
        return Handlers(
            on_message=self.on_message, on_opened=self.on_opened, on_closed=self.on_closed
        )

    @property
    def idle(self) -> bool:
        """True if no handler was ever called."""
        return not (self.opened or self.messages or self.closed)

    def on_opened(self, connection: Connection) -> None:
        self.opened.append(connection)
        self._changed.set()

    def on_message(self, connection: Connection, message: PeerMessage | Call) -> None:
        self.messages.append(message)
        if isinstance(message, Call):
            connection.send_nowait(Answer(id=message.id, body=Done()))
        self._changed.set()

    def on_closed(self, connection: Connection, error: P2PSchedError | None) -> None:
        self.closed.append((connection, error))
        self._changed.set()

    async def wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def serving(
    handlers: Handlers | None = None,
    *,
    identity: Identity = A,
    secret: bytes = SECRET,
    port: int = 0,
    host: str = "127.0.0.1",
) -> AsyncIterator[Server]:
    server = Server(
        f"{host}:{port}",
        identity=identity,
        secret=secret,
        handlers=handlers if handlers is not None else Recorder().handlers,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def until(condition: Callable[[], bool]) -> None:
    """Turn the loop until a condition holds that no event announces; the test's limit ends it."""
    while not condition():  # noqa: ASYNC110 - counters of the transport announce nothing
        await asyncio.sleep(0)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end of a raw connection, however it ends."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        return


def fresh_peer(seed: int) -> PeerId:
    return PeerId(new_id(random.Random(seed)))


@asynccontextmanager
async def stranger(answer: Callable[[bytes], bytes], *, leaves: bool) -> AsyncIterator[str]:
    """Something at an address that answers the first bytes and then leaves, or just stays there.

    Ends when all who connected are gone.
    """
    busy = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy
        busy += 1
        writer.write(answer(await reader.read(1000)))
        if leaves:
            writer.write_eof()
        await read_all(reader)
        await hang_up(writer)
        busy -= 1

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await until(lambda: not busy)
        await asyncio.sleep(0)

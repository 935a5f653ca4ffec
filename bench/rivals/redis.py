"""Redis beside us: one real server on loopback that syncs every write before it answers, and a
client that costs what ours costs. One disk, no copies: what it promises is less."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, cast

from bench.cluster import family_cpu_s, free_port
from bench.registry import Unsupported

PROGRAM: Final = "redis-server"
READY_TIMEOUT_S: Final = 10.0

Reply = bytes | int | None | list["Reply"]


class RedisError(Exception):
    """The server refused a command, or the connection is gone."""


class Redis:
    """Started at the first use and killed at the end."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.version = ""

    async def __aenter__(self) -> Redis:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def start(self) -> None:
        """Until it answers; nothing to do from the second time on. Raises Unsupported."""
        if self._process is not None:
            return
        program = shutil.which(PROGRAM)
        if program is None:
            raise Unsupported("no program `redis-server` here: apt-get install redis-server")
        await asyncio.to_thread(self._start, program)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await self._answers():  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise Unsupported(f"no answer of redis within {READY_TIMEOUT_S:g} s") from None

    def _start(self, program: str) -> None:
        said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
        self.version = said.stdout.partition("v=")[2].partition(" ")[0]
        self._folder = Path(tempfile.mkdtemp(prefix="p2psched-bench-redis-"))
        self._port = free_port()
        options = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([program, *words], stdout=log, stderr=log)

    async def _answers(self) -> bool:
        try:
            client = await self.client()
        except OSError:
            return False
        try:
            return await client.call("PING") == b"PONG"
        finally:
            client.close()

    async def client(self) -> RedisClient:
        """A connection. One that waits for an item or a lock needs its own. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(RedisClient, "127.0.0.1", self._port)
        return client

    async def syncs(self) -> float:
        """Redis does not count its syncs."""
        return 0.0

    def cpu_s(self) -> float:
        return family_cpu_s(self._process.pid) if self._process is not None else 0.0


class RedisClient(asyncio.Protocol):
    """Commands over one connection, answered in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._out: list[bytes] = []
        self._in = b""
        self._lost: RedisError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    async def call(self, *words: str | bytes | int) -> Reply:
        """Raises RedisError; the caller owns the deadline."""
        if self._lost is not None:
            raise self._lost
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.append(answer)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(encode(*words))
        return await answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        data = self._in + data if self._in else data
        at = 0
        while (found := decode(data, at)) is not None:
            reply, at = found
            answer = self._waiting.popleft()
            if answer.done():  # its caller has gone
                continue
            if isinstance(reply, RedisError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)
        self._in = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = RedisError(f"the connection is closed: {exc or ''}")
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(self._lost)


def encode(*words: str | bytes | int) -> bytes:
    """A command (RESP, version 2)."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def decode(data: bytes, at: int) -> tuple[Reply | RedisError, int] | None:
    """The reply that starts here and where the next one starts; None if it is not all here yet."""
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, head, at = data[at : at + 1], data[at + 1 : end], end + 2
    match kind:
        case b"+":
            return head, at
        case b"-":
            return RedisError(head.decode()), at
        case b":":
            return int(head), at
        case b"$":
            size = int(head)
            if size < 0:
                return None, at
            return (data[at : at + size], at + size + 2) if len(data) >= at + size + 2 else None
        case b"*":
            return _decode_list(data, at, int(head))
        case _:
            raise RedisError(f"a reply that begins with {kind!r}")


def _decode_list(data: bytes, at: int, count: int) -> tuple[Reply | RedisError, int] | None:
    if count < 0:
        return None, at
    replies: list[Reply] = []
    for _ in range(count):
        found = decode(data, at)
        if found is None:
            return None
        reply, at = found
        if isinstance(reply, RedisError):
            raise reply
        replies.append(reply)
    return replies, at

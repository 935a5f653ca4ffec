"""The client that etcd is measured with: its bytes, and what it makes of a server's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from bench.rivals.grpc import (
    FRAME_BYTES_MAX,
    PREFACE,
    WINDOW_FIRST,
    Channel,
    GrpcError,
    HeaderWriter,
    Kind,
    connect,
    frame,
    status_of,
)
from tests.net.conftest import Run, run  # noqa: F401 (a fixture)

END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
# As etcd 3.4 writes them: grpc-status 0 and an empty grpc-message, names in Huffman code.
TRAILERS = bytes.fromhex("40889acac8b21234da8f0130 40889acac8b525420731 7f00".replace(" ", ""))
HEADERS = bytes.fromhex("885f8b1d75d0620d263d4c4d6564")  # :status 200, content-type


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


class Server:
    """Takes frames apart; `reply` says what to send for each of them."""

    def __init__(self, reply: Callable[[Server, int, int, int, bytes], None]) -> None:
        self._reply = reply
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.preface = b""
        self.writer: asyncio.StreamWriter | None = None
        self.ended = asyncio.Event()

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.preface = await reader.readexactly(len(PREFACE))
            self.send(frame(Kind.SETTINGS, 0, 0))
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                found = head[3], head[4], int.from_bytes(head[5:], "big"), payload
                self.frames.append(found)
                self._reply(self, *found)
        writer.close()
        self.ended.set()

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    def answer(self, stream: int, data: bytes, trailers: bytes = TRAILERS) -> None:
        self.send(frame(Kind.HEADERS, END_HEADERS, stream, HEADERS))
        self.send(frame(Kind.DATA, 0, stream, message(data)))
        self.send(frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, trailers))

    def of(self, kind: Kind) -> list[tuple[int, int, bytes]]:
        return [(flags, stream, data) for k, flags, stream, data in self.frames if k == kind]


@contextlib.asynccontextmanager
async def talking(
    reply: Callable[[Server, int, int, int, bytes], None],
) -> AsyncIterator[tuple[Server, Channel]]:
    server = Server(reply)
    listener = await asyncio.start_server(server.on_connection, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        channel = await connect("127.0.0.1", port)
        yield server, channel
        channel.close()
        await server.ended.wait()


def echo(server: Server, kind: int, _flags: int, stream: int, payload: bytes) -> None:
    if kind == Kind.DATA:
        server.answer(stream, payload[5:][::-1])


def test_a_header_is_spelled_once_and_a_number_after_that() -> None:
    writer = HeaderWriter()
    headers = [(":method", "POST"), (":path", "/a"), ("te", "x")]
    assert writer.write(headers) == b"\x83\x44\x02/a\x40\x02te\x01x"
    assert writer.write(headers) == b"\x83\xbf\xbe"  # entries 63 and 62: the newest has the least
    assert writer.write([(":path", "/b")]) == b"\x44\x02/b"
    assert writer.write(headers) == b"\x83\xc0\xbf"


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (TRAILERS, 0),
        (b"\x20" + TRAILERS, 0),  # behind a change of the table's size
        (b"\x00\x0bgrpc-status\x0214", 14),
    ],
)
def test_the_status_of_a_call_is_found_by_its_bytes(block: bytes, status: int) -> None:
    assert status_of(block) == status


@pytest.mark.parametrize("block", [b"", HEADERS, TRAILERS[:10], b"\x00\x0bgrpc-status\x01x"])
def test_trailers_without_a_status_are_an_error_and_not_a_success(block: bytes) -> None:
    with pytest.raises(GrpcError, match="without a status"):
        status_of(block)


def test_many_calls_find_their_answers_on_one_connection(run: Run) -> None:  # noqa: F811
    async def main() -> None:
        async with talking(echo) as (server, channel):
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(channel.call(f"/path{n % 3}", b"%d!" % n)) for n in range(300)
                ]
            assert [call.result() for call in calls] == [
                b"!%s" % str(n)[::-1].encode() for n in range(300)
            ]
            assert server.preface == PREFACE
            heads = [data for _, _, data in server.of(Kind.HEADERS)]
            assert len(heads) == 300
            assert max(map(len, heads[3:])) <= 6  # numbers alone

    run(main())


def test_answers_may_come_in_any_order_and_in_any_pieces(run: Run) -> None:  # noqa: F811
    waiting: list[tuple[int, bytes]] = []

    def reply(server: Server, kind: int, _flags: int, stream: int, payload: bytes) -> None:
        if kind != Kind.DATA:
            return
        waiting.append((stream, payload[5:]))
        if len(waiting) == 5:
            whole, real = bytearray(), server.writer
            assert real is not None
            for number, data in reversed(waiting):
                body = message(data * 2)
                whole += frame(Kind.HEADERS, END_HEADERS, number, HEADERS)
                whole += frame(Kind.DATA, 0, number, body[:3])
                whole += frame(Kind.DATA, 0, number, body[3:])
                whole += frame(Kind.HEADERS, END_HEADERS | END_STREAM, number, TRAILERS)
            for at in range(0, len(whole), 7):
                real.write(bytes(whole[at : at + 7]))

    async def main() -> None:
        async with talking(reply) as (_, channel), asyncio.TaskGroup() as group:
            calls = [group.create_task(channel.call("/p", b"%d" % n)) for n in range(5)]
        assert [call.result() for call in calls] == [b"%d%d" % (n, n) for n in range(5)]

    run(main())


def test_no_more_is_sent_than_the_servers_window_allows(run: Run) -> None:  # noqa: F811
    size = 1000
    opened = asyncio.Event()

    def reply(server: Server, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == Kind.DATA:
            taken = sum(len(data) for _, _, data in server.of(Kind.DATA))
            if opened.is_set():
                echo(server, kind, flags, stream, payload)
                return
            assert taken <= WINDOW_FIRST
            if taken + size + 5 > WINDOW_FIRST:  # the next one would not fit: now there is room
                opened.set()
                for _, stream_before, data in server.of(Kind.DATA):
                    echo(server, Kind.DATA, 0, stream_before, data)
                server.send(frame(Kind.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big")))

    async def main() -> None:
        async with talking(reply) as (_, channel), asyncio.TaskGroup() as group:
            calls = [group.create_task(channel.call("/p", bytes(size))) for _ in range(200)]
        assert {call.result() for call in calls} == {bytes(size)}

    run(main())
    assert opened.is_set()


def test_pings_and_settings_are_acknowledged(run: Run) -> None:  # noqa: F811
    def reply(server: Server, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == Kind.DATA:
            server.send(frame(Kind.PING, 0, 0, b"12345678"))
        elif kind == Kind.PING:
            server.answer(1, b"")

    async def main() -> None:
        async with talking(reply) as (server, channel):
            assert await channel.call("/p", b"") == b""
            assert server.of(Kind.PING) == [(ACK, 0, b"12345678")]
            assert (ACK, 0, b"") in server.of(Kind.SETTINGS)

    run(main())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (frame(Kind.RST_STREAM, 0, 1, bytes(3) + b"\x07"), "stream ended, 7"),
        (frame(Kind.GOAWAY, 0, 0, bytes(8) + b"too many pings"), "too many pings"),
        (frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b"x"), "padded"),
        (frame(Kind.HEADERS, 0, 1, b"x"), "continued"),
        (frame(Kind.HEADERS, 5, 1, b"\x00\x0bgrpc-status\x015"), "gRPC status 5"),
        (frame(Kind.DATA, 0, 1, b"\x01\0\0\0\0") + frame(Kind.HEADERS, 5, 1, TRAILERS), "plain"),
        (frame(Kind.DATA, 0, 1, b"\x00\0\0\0\2x") + frame(Kind.HEADERS, 5, 1, TRAILERS), "one"),
        (frame(Kind.SETTINGS, 0, 0, b"\0\4" + bytes(4)), "window of 0 bytes"),
    ],
)
def test_a_call_that_fails_says_why(run: Run, answer: bytes, text: str) -> None:  # noqa: F811
    def reply(server: Server, kind: int, _flags: int, _stream: int, _payload: bytes) -> None:
        if kind == Kind.DATA:
            server.send(answer)

    async def main() -> None:
        async with talking(reply) as (_, channel):
            with pytest.raises(GrpcError, match=text):
                await channel.call("/p", b"")

    run(main())


def test_a_lost_connection_ends_the_calls_that_are_open_and_those_that_come(run: Run) -> None:  # noqa: F811
    def reply(server: Server, kind: int, _flags: int, _stream: int, _payload: bytes) -> None:
        if kind == Kind.DATA and server.writer is not None:
            server.writer.transport.abort()

    async def main() -> None:
        async with talking(reply) as (_, channel):
            for _ in range(2):
                with pytest.raises(GrpcError, match="is closed"):
                    await channel.call("/p", b"")

    run(main())


def test_a_message_that_fits_no_frame_is_refused(run: Run) -> None:  # noqa: F811
    async def main() -> None:
        async with talking(echo) as (_, channel):
            with pytest.raises(GrpcError, match="fits no frame"):
                await channel.call("/p", bytes(FRAME_BYTES_MAX))
            assert await channel.call("/p", b"ab") == b"ba"

    run(main())

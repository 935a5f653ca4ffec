"""What strangers and broken programs send costs one connection, and nothing else."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from itertools import pairwise

import pytest
import zstandard

from p2psched.model.errors import ProtocolError, Refused, Unavailable
from p2psched.model.messages import Answer, Call, Done, GetStatus, Message
from p2psched.model.opening_messages import Challenge, Goodbye, Welcome
from p2psched.model.raft import Append, AppendReply, Entry, EntryKind
from p2psched.net.auth import ClientOpening, ServerOpening
from p2psched.net.calls import CallClient
from p2psched.net.dial import connect
from p2psched.net.frames import FrameDecoder, encode
from p2psched.net.link import Handlers
from p2psched.net.server import HALF_OPEN_MAX, Server
from tests.net.conftest import Run
from tests.net.wire import (
    CLIENT,
    SECRET,
    A,
    B,
    Recorder,
    hang_up,
    read_all,
    serving,
    stranger,
    until,
)

NOTHING = Handlers(on_message=lambda _, __: None)


async def raw(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.address.port)


async def raw_open(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection that went through the opening as a client."""
    reader, writer = await raw(server)
    opening, decoder = ClientOpening(CLIENT, SECRET), FrameDecoder()
    step = opening.start()
    while step.remote is None:
        writer.write(b"".join(encode(message) for message in step.send))
        decoder.push(await reader.read(1000))
        message = decoder.take()
        assert message is not None
        step = opening.on_message(message)
    return reader, writer


async def works(server: Server) -> None:
    """A good client still gets its answer."""
    async with asyncio.timeout(10):
        link = await connect(server.address, identity=CLIENT, secret=SECRET, handlers=NOTHING)
        calls = CallClient(link)
        assert await calls.call(GetStatus()) == Done()
        await calls.close()


def frame(body: bytes, flag: int = 0) -> bytes:
    return struct.pack("<IB", len(body) + 1, flag) + body


GARBAGE = {
    "nothing": b"",
    "zeros": bytes(5000),
    "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100a5010000a10303") + bytes(100),
    "length over the limit": b"\xff\xff\xff\xff",
    "noise": random.Random(4).randbytes(100_000),
    "bad flag": frame(b"\x91\x04", 7),
    "bomb": frame(zstandard.compress(bytes(1 << 26)), 1),
    "nesting": frame(b"\x92\x0a" + b"\x91" * 3000),
    "a call": encode(Call(id=1, body=GetStatus())),
    "welcome": encode(Welcome()),
    "goodbye": encode(Goodbye("refused", "no")),
}


# What may become a frame yet, so that only the sender's leaving or a timeout ends it.
PATIENCE = {("nothing", False), ("nothing", True), ("tls", True), ("a call", True)}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("opened", [False, True])
def test_garbage_costs_one_connection(run: Run, name: str, opened: bool) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            reader, writer = await (raw_open(server) if opened else raw(server))
            writer.write(GARBAGE[name])
            if (name, opened) in PATIENCE:
                writer.write_eof()
            await read_all(reader)
            await hang_up(writer)
            await works(server)
            calls = 2 if opened and name == "a call" else 1
            assert len(recorder.messages) == calls
            await until(lambda: not server.connections)

    run(main())


def test_no_handler_sees_a_frame_sent_before_the_proof(run: Run) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            reader, writer = await raw(server)
            [hello] = ClientOpening(B, SECRET).start().send
            writer.write(encode(hello) + encode(AppendReply(term=1, round=1, ok=True)))
            await read_all(reader)
            await hang_up(writer)
            assert recorder.idle

    run(main())


def test_a_client_may_not_send_what_only_peers_send(run: Run) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            link = await connect(server.address, identity=CLIENT, secret=SECRET, handlers=NOTHING)
            link.send_nowait(AppendReply(term=1, round=1, ok=True))
            await recorder.wait(lambda: bool(recorder.closed))
            assert isinstance(recorder.closed[0][1], ProtocolError)
            assert recorder.messages == []

    run(main())


UNASKED: list[Message] = [Welcome(), Answer(id=1, body=Done())]


@pytest.mark.parametrize("message", UNASKED, ids=lambda message: type(message).__name__)
def test_messages_that_nobody_asked_for_end_the_connection(run: Run, message: Message) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            link = await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            link.send_nowait(message)
            await recorder.wait(lambda: bool(recorder.closed))
            assert isinstance(recorder.closed[0][1], ProtocolError)

    run(main())


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_client_that_leaves_at_any_step_of_the_opening_leaves_nothing(run: Run, cut: int) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            reader, writer = await raw(server)
            opening, decoder = ClientOpening(B, SECRET), FrameDecoder()
            hello = encode(opening.start().send[0])
            if cut == 1:
                writer.write(hello[:-3])
            elif cut == 2:
                writer.write(hello)
                [challenge] = decoder.feed(await reader.read(1000))
                assert isinstance(challenge, Challenge)
            await until(lambda: server.half_open_count == 1)
            await hang_up(writer)
            await until(lambda: server.half_open_count == 0)
            assert recorder.idle
            await works(server)

    run(main())


def _silent(_: bytes) -> bytes:
    return b""


def _challenge_only(data: bytes) -> bytes:
    [hello] = FrameDecoder().feed(data)
    return b"".join(encode(reply) for reply in ServerOpening(A, SECRET).on_message(hello).send)


@pytest.mark.parametrize("answer", [_silent, _challenge_only])
def test_a_server_that_leaves_during_the_opening_is_unavailable(
    run: Run, answer: Callable[[bytes], bytes]
) -> None:
    async def main() -> None:
        async with stranger(answer, leaves=True) as address:
            with pytest.raises(Unavailable, match=address):
                await connect(address, identity=B, secret=SECRET, handlers=NOTHING)

    run(main())


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", frame(b"\x91\x04")],
)
def test_something_else_that_answers_is_refused_and_named(run: Run, answer: bytes) -> None:
    async def main() -> None:
        async with stranger(lambda _: answer, leaves=False) as address:
            with pytest.raises(Refused, match=f"{address} is not a p2psched peer"):
                await connect(address, identity=B, secret=SECRET, handlers=NOTHING)

    run(main())


def test_who_never_answers_is_unavailable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psched.net.dial.HANDSHAKE_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with stranger(_silent, leaves=False) as address:
            with pytest.raises(Unavailable, match="in time"):
                await connect(address, identity=B, secret=SECRET, handlers=NOTHING)

    run(main())


def test_a_connect_that_is_given_up_leaves_no_connection(run: Run) -> None:
    async def main() -> None:
        async with stranger(_silent, leaves=False) as address:  # ends when all are gone
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await connect(address, identity=B, secret=SECRET, handlers=NOTHING)

    run(main())


def test_an_opening_that_takes_too_long_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psched.net.link.HANDSHAKE_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with serving() as server:
            reader, writer = await raw(server)
            writer.write(encode(ClientOpening(B, SECRET).start().send[0])[:5])
            assert await read_all(reader) == b""
            await hang_up(writer)
            await works(server)

    run(main())


def test_a_frame_that_dribbles_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psched.net.link.FRAME_TIMEOUT_S", 0.05)

    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            _, writer = await raw_open(server)
            call = encode(Call(id=1, body=GetStatus()))
            writer.write(call + call[:4])
            await recorder.wait(lambda: bool(recorder.closed))
            assert isinstance(recorder.closed[0][1], ProtocolError)
            assert len(recorder.messages) == 1
            await hang_up(writer)

    run(main())


def test_an_idle_connection_between_frames_is_not_cut(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psched.net.link.FRAME_TIMEOUT_S", 0.02)

    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            _, writer = await raw_open(server)
            call = encode(Call(id=1, body=GetStatus()))
            writer.write(call[:6])
            received = server.connections[0]
            await until(lambda: received._frame_timer is not None)
            writer.write(call[6:])
            await recorder.wait(lambda: len(recorder.messages) == 1)
            await until(lambda: received._frame_timer is None)  # it looked, and left it alone
            writer.write(call)
            await recorder.wait(lambda: len(recorder.messages) == 2)
            await hang_up(writer)

    run(main())


def test_messages_that_come_byte_by_byte_are_understood(run: Run) -> None:
    async def main() -> None:
        recorder = Recorder()
        async with serving(recorder.handlers) as server:
            reader, writer = await raw_open(server)
            for byte in encode(Call(id=9, body=GetStatus())):
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            [answer] = FrameDecoder(opening=False).feed(await reader.read(100))
            assert answer == Answer(id=9, body=Done())
            await hang_up(writer)

    run(main())


def test_a_thousand_half_open_connections_do_not_stop_a_good_one(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            ends = [await raw(server) for _ in range(1_000)]
            await works(server)
            assert server.half_open_count <= HALF_OPEN_MAX
            assert server.refused_count >= 1_000 - HALF_OPEN_MAX - 1
            for _, writer in ends:
                await hang_up(writer)

    run(main())


def test_small_frames_that_inflate_much_are_handled_in_turns(run: Run) -> None:
    entry = Entry(1, 1, EntryKind.COMMANDS, 0, 0, bytes(1_000_000))
    large = Append(term=1, prev_index=0, prev_term=0, commit=0, round=0, entries=(entry,))

    async def main() -> None:
        sizes: list[int] = []
        turns: list[int] = []
        done = asyncio.Event()

        def on_message(_: object, message: object) -> None:
            assert isinstance(message, Append)
            sizes.append(len(message.entries[0].payload))
            if len(sizes) == 60:
                done.set()

        def tick() -> None:
            turns.append(len(sizes))
            if not done.is_set():
                asyncio.get_running_loop().call_soon(tick)

        async with serving(Handlers(on_message=on_message)) as server:
            link = await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            tick()
            link.send_frame_nowait(encode(large) * 60)
            await done.wait()
            assert sizes == [1_000_000] * 60
            assert max(b - a for a, b in pairwise(turns)) <= 6

    run(main())

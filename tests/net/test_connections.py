"""Connections over real sockets: what good sides get."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import socket

import pytest

from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.model.limits import FRAME_BYTES_MAX, KIB, LINK_BACKLOG_BYTES_MAX, MIB
from p2psched.model.messages import Answer, Call, Done, GetStatus
from p2psched.model.raft import Append, AppendReply, Entry, EntryKind, VoteReply
from p2psched.net.auth import ClientOpening, new_secret
from p2psched.net.dial import connect
from p2psched.net.frames import FrameDecoder, encode
from p2psched.net.link import Connection, Handlers, State
from p2psched.net.server import CONNECTIONS_PER_PEER_MAX, Server
from tests.net.conftest import Run
from tests.net.wire import (
    CLIENT,
    PEER_A,
    PEER_B,
    SECRET,
    A,
    B,
    Recorder,
    fresh_peer,
    serving,
    until,
)

CALL = Call(id=1, body=GetStatus())


def reply(round_number: int) -> AppendReply:
    return AppendReply(term=1, round=round_number, ok=True)


def append(payload: bytes) -> Append:
    entry = Entry(1, 1, EntryKind.COMMANDS, 0, 0, payload)
    return Append(term=1, prev_index=0, prev_term=0, commit=0, round=0, entries=(entry,))


def test_two_peers_exchange_messages_both_ways(run: Run) -> None:
    async def main() -> None:
        theirs, ours = Recorder(), Recorder()
        async with serving(theirs.handlers) as server:
            link = await connect(server.address, identity=B, secret=SECRET, handlers=ours.handlers)
            assert (link.peer, link.state) == (PEER_A, State.OPEN)
            await theirs.wait(lambda: bool(theirs.opened))
            back = theirs.opened[0]
            assert (back.peer, back.address) == (PEER_B, B.address)
            for number in range(100):
                assert link.send_nowait(reply(number))
                assert back.send_nowait(VoteReply(term=number, granted=True, pre=False))
            await theirs.wait(lambda: len(theirs.messages) == 100)
            await ours.wait(lambda: len(ours.messages) == 100)
            assert theirs.messages == [reply(number) for number in range(100)]
            assert link.sent_bytes >= back.received_bytes > 100 * 5
            link.close()
            await theirs.wait(lambda: bool(theirs.closed))
            assert theirs.closed == [(back, None)]
            await link.wait_closed()
            assert ours.closed == [(link, None)]
            assert not link.send_nowait(reply(1))

    run(main())


def test_messages_right_behind_the_welcome_arrive(run: Run) -> None:
    """The peer that answers may speak first, with frames larger than the opening allows."""
    large = append(bytes(range(256)) * 100)

    async def main() -> None:
        ours = Recorder()

        def greet(connection: Connection) -> None:
            assert all(connection.send_nowait(large) for _ in range(3))

        eager = Handlers(on_message=lambda _, __: None, on_opened=greet)
        async with serving(eager) as server:
            await connect(server.address, identity=B, secret=SECRET, handlers=ours.handlers)
            await ours.wait(lambda: len(ours.messages) == 3)
            assert ours.messages == [large] * 3

    run(main())


def test_frames_of_the_largest_size_arrive(run: Run) -> None:
    noise = random.Random(1).randbytes(FRAME_BYTES_MAX - 100)

    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server:
            link = await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            for payload in (noise, bytes(FRAME_BYTES_MAX - 100), noise):
                await link.send(append(payload))
            with pytest.raises(UsageError, match="split"):
                await link.send(append(noise + noise))
            await theirs.wait(lambda: len(theirs.messages) == 3)
            assert theirs.messages == [append(noise), append(bytes(len(noise))), append(noise)]
            assert link.state is State.OPEN

    run(main())


NOTHING = Handlers(on_message=lambda _, __: None)


class CountingTransport(asyncio.Transport):
    """Counts writes, and takes everything."""

    def __init__(self, near: str = "10.0.0.1", far: str = "10.0.0.2") -> None:
        super().__init__({"sockname": (near, 7420), "peername": (far, 41234)})
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("far", "is_compressed"), [("10.0.0.1", False), ("10.0.0.2", True)], ids=["here", "there"]
)
def test_only_what_crosses_a_network_is_compressed(
    run: Run, far: str, *, is_compressed: bool
) -> None:
    large = append(bytes(64 * KIB))

    async def main() -> None:
        transport = CountingTransport("10.0.0.1", far)
        link = Connection(ClientOpening(B, SECRET), NOTHING)
        link.connection_made(transport)
        await until(lambda: len(transport.writes) == 1)
        link._on_open(A)
        assert link.send_nowait(large)
        await link.send(large)
        link.flush()
        sent = b"".join(transport.writes[1:])
        assert sent == encode(large, compress=is_compressed) * 2
        assert (len(sent) < len(encode(large, compress=False))) == is_compressed
        decoder = FrameDecoder(opening=False)
        assert decoder.feed(sent) == [large, large]
        link.connection_lost(None)

    run(main())


def test_messages_of_one_iteration_leave_in_one_write(run: Run) -> None:
    async def main() -> None:
        transport = CountingTransport()
        link = Connection(ClientOpening(B, SECRET), NOTHING)
        link.connection_made(transport)
        await until(lambda: len(transport.writes) == 1)
        link._on_open(A)
        for number in range(50):
            assert link.send_nowait(reply(number))
        assert len(transport.writes) == 1
        await until(lambda: len(transport.writes) == 2)
        assert transport.writes[1] == b"".join(encode(reply(number)) for number in range(50))
        link.send_nowait(reply(1))
        link.flush()  # as before a blocking write to the disk
        assert transport.writes[2:] == [encode(reply(1))]
        link.connection_lost(None)

    run(main())


def test_a_reader_that_stops_costs_a_bounded_backlog_and_sending_waits(run: Run) -> None:
    noise = random.Random(2).randbytes(256 * 1024)

    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server:
            link = await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            await theirs.wait(lambda: bool(theirs.opened))
            theirs_transport = theirs.opened[0]._transport
            assert theirs_transport is not None
            theirs_transport.pause_reading()
            sent = 0
            while link.send_nowait(append(noise)):
                sent += 1
                assert link.backlog_bytes <= LINK_BACKLOG_BYTES_MAX + MIB
                await asyncio.sleep(0)
            assert link.dropped_count == 1
            waiting = asyncio.ensure_future(link.send(reply(7)))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            theirs_transport.resume_reading()
            await waiting
            await theirs.wait(lambda: len(theirs.messages) == sent + 1)
            assert theirs.messages[-1] == reply(7)

    run(main())


def test_who_waits_to_send_is_told_when_the_connection_closes(run: Run) -> None:
    noise = random.Random(3).randbytes(512 * 1024)

    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server:
            link = await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            await theirs.wait(lambda: bool(theirs.opened))
            theirs_transport = theirs.opened[0]._transport
            assert theirs_transport is not None
            theirs_transport.pause_reading()
            while link.send_nowait(append(noise)):
                link.flush()
            waiting = asyncio.ensure_future(link.send(reply(7)))
            await asyncio.sleep(0)
            link.abort()
            with pytest.raises(Unavailable, match="closed"):
                await waiting

    run(main())


def test_with_another_secret_the_client_is_told_what_to_do(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server:
            for identity in (CLIENT, B):
                with pytest.raises(Refused, match="--secret-file"):
                    await connect(
                        server.address, identity=identity, secret=new_secret(), handlers=NOTHING
                    )
            await until(lambda: server.half_open_count == 0)
            assert theirs.idle

    run(main())


def test_a_peer_that_connects_to_itself_is_refused(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            with pytest.raises(Refused, match="folder"):
                await connect(server.address, identity=A, secret=SECRET, handlers=NOTHING)

    run(main())


def test_nobody_listening_is_unavailable_and_named(run: Run) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]

        async def main() -> None:
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
                await connect(f"127.0.0.1:{port}", identity=CLIENT, secret=SECRET, handlers=NOTHING)
            with pytest.raises(Unavailable, match=r"nowhere\.invalid"):
                await connect("nowhere.invalid", identity=CLIENT, secret=SECRET, handlers=NOTHING)
            with pytest.raises(UsageError):
                await connect("a b", identity=CLIENT, secret=SECRET, handlers=NOTHING)

        run(main())


def test_a_port_in_use_is_refused_with_advice(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            second = Server(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            with pytest.raises(Refused, match="in use by another process: choose another --listen"):
                await second.start()
            await second.close()

    run(main())


@pytest.mark.parametrize(
    ("address", "advice"),
    [("nowhere.invalid:0", "spelling"), ("192.0.2.1:0", "no address of this machine")],
)
def test_an_address_that_is_not_ours_is_a_usage_error(run: Run, address: str, advice: str) -> None:
    async def main() -> None:
        server = Server(address, identity=A, secret=SECRET, handlers=NOTHING)
        with pytest.raises(UsageError, match=advice):
            await server.start()

    run(main())


def test_a_stopping_server_says_goodbye(run: Run) -> None:
    async def main() -> None:
        ours = Recorder()
        async with asyncio.TaskGroup() as group:
            server = Server("127.0.0.1:0", identity=A, secret=SECRET, handlers=NOTHING)
            serving_task = group.create_task(server.run())
            await until(lambda: server.address.port != 0)
            await connect(server.address, identity=B, secret=SECRET, handlers=ours.handlers)
            serving_task.cancel()
        await ours.wait(lambda: bool(ours.closed))
        assert "stopping" in str(ours.closed[0][1])

    run(main())


def test_one_peer_gets_few_connections_and_the_oldest_goes(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server:
            links = [
                await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
                for _ in range(CONNECTIONS_PER_PEER_MAX + 1)
            ]
            await links[0].wait_closed()
            await theirs.wait(lambda: bool(theirs.closed))
            assert len(server.connections) == CONNECTIONS_PER_PEER_MAX
            assert all(link.state is State.OPEN for link in links[1:])

    run(main())


def test_beyond_the_limit_a_connection_is_told_to_come_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psched.net.server.CONNECTIONS_MAX", 3)

    async def main() -> None:
        async with serving() as server:
            for number in range(3):
                other = dataclasses.replace(B, peer=fresh_peer(number))
                await connect(server.address, identity=other, secret=SECRET, handlers=NOTHING)
            with pytest.raises(Unavailable, match="another peer"):
                await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            server.connections[0].abort()
            await until(lambda: len(server.connections) == 2)
            await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)

    run(main())


def test_an_identity_learnt_later_counts_for_later_connections(run: Run) -> None:
    async def main() -> None:
        nameless = dataclasses.replace(A, cluster=None)
        async with serving(identity=nameless) as server:
            first = await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            assert first.remote.cluster is None
            server.identity = A
            second = await connect(server.address, identity=B, secret=SECRET, handlers=NOTHING)
            assert second.remote.cluster == A.cluster

    run(main())


def test_a_failing_handler_costs_its_own_connection(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(connection: Connection, message: object) -> None:
        if isinstance(message, Call):
            connection.send_nowait(Answer(id=message.id, body=Done()))
        else:
            raise KeyError("a fault of ours")

    async def main() -> None:
        ours, others = Recorder(), Recorder()
        async with serving(Handlers(on_message=fail)) as server:
            other = await connect(server.address, identity=CLIENT, secret=SECRET, handlers=NOTHING)
            link = await connect(server.address, identity=B, secret=SECRET, handlers=ours.handlers)
            link.send_nowait(reply(1))
            await ours.wait(lambda: bool(ours.closed))
            other.answers = sink = Sink()
            other.send_nowait(CALL)
            await sink.got.wait()
            assert others.closed == []

    run(main())
    assert [record.message for record in caplog.records] == ["handler-failed"]


class Sink:
    """Takes one answer."""

    def __init__(self) -> None:
        self.got = asyncio.Event()

    def on_answer(self, message: object) -> None:
        self.got.set()

    def on_closed(self, error: object) -> None:
        self.got.set()

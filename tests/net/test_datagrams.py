"""Datagrams between peers of one cluster, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model.gossip import BODY_BYTES_MAX, DATAGRAM_BYTES_MAX
from p2psched.model.ids import ClusterId
from p2psched.net.address import Address, parse
from p2psched.net.datagrams import Datagrams, Seal, look_up, numeric
from tests.net.wire import CLUSTER, SECRET

SEAL = Seal(SECRET, CLUSTER)
BODIES = st.binary(max_size=BODY_BYTES_MAX)


class Box:
    """What one socket got."""

    def __init__(self, seal: Seal = SEAL) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.datagrams = Datagrams(seal, self._on_datagram)
        self.changed = asyncio.Event()

    def _on_datagram(self, source: str, body: bytes) -> None:
        self.got.append((source, body))
        self.changed.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < count:
                await self.changed.wait()
                self.changed.clear()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def opened(*boxes: Box) -> AsyncIterator[list[Address]]:
    found = []
    try:
        for box in boxes:
            address = Address("127.0.0.1", free_port())
            await box.datagrams.open_socket(address)
            found.append(address)
        yield found
    finally:
        for box in boxes:
            box.datagrams.close()


# --- seals ----------------------------------------------------------------------------------------


@given(BODIES)
def test_a_sealed_body_is_opened_and_fits_a_datagram(body: bytes) -> None:
    sealed = SEAL.seal(body)
    assert SEAL.open(sealed) == body
    assert len(sealed) <= DATAGRAM_BYTES_MAX


@given(BODIES, st.data())
def test_a_changed_bit_is_not_opened(body: bytes, data: st.DataObject) -> None:
    sealed = bytearray(SEAL.seal(body))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << (bit % 8)
    assert SEAL.open(bytes(sealed)) is None


@given(st.binary(max_size=64))
def test_what_nobody_sealed_is_not_opened(data: bytes) -> None:
    assert SEAL.open(data) is None
    assert SEAL.open(b"\x01" + data) is None


@pytest.mark.parametrize(
    "other", [Seal(SECRET, ClusterId("d" * 32)), Seal(b"t" * 32, CLUSTER)], ids=["id", "secret"]
)
def test_a_peer_of_another_cluster_seals_otherwise(other: Seal) -> None:
    assert SEAL.open(other.seal(b"hello")) is None


# --- sockets --------------------------------------------------------------------------------------


def test_what_one_sends_the_other_gets_with_where_it_came_from() -> None:
    async def story() -> None:
        one, other = Box(), Box()
        async with opened(one, other) as (here, there):
            assert one.datagrams.send((there.host, there.port), b"ping")
            await other.wait(1)
            assert other.got == [(str(here), b"ping")]
            back = numeric(parse(other.got[0][0]))
            assert back is not None
            assert other.datagrams.send(back, b"ack")
            await one.wait(1)
            assert one.datagrams.counts.received == one.datagrams.counts.sent == 1
            assert one.datagrams.counts.sent_bytes == len(b"ping") + 13 + 28

    asyncio.run(story())


def test_what_others_send_is_dropped_and_counted() -> None:
    async def story() -> None:
        box, foreign = Box(), Box(Seal(b"t" * 32, CLUSTER))
        async with opened(box, foreign) as (here, _):
            where = (here.host, here.port)
            foreign.datagrams.send(where, b"hello")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
                for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01" * 60_000):
                    anybody.sendto(data, where)
                anybody.sendto(SEAL.seal(b"ours"), where)
            await box.wait(1)
            assert [body for _, body in box.got] == [b"ours"]
            assert box.datagrams.counts.foreign == 4

    asyncio.run(story())


def test_a_flood_is_taken_in_turns() -> None:
    """Nothing that was sent before the last one is still to come when it is there."""

    async def story() -> None:
        box, sender = Box(), Box()
        async with opened(box, sender) as (here, _):
            for number in range(150):
                sender.datagrams.send((here.host, here.port), b"%d" % number)
            await box.wait(150)
            assert [int(body) for _, body in box.got] == list(range(150))

    asyncio.run(story())


def test_what_can_not_be_sent_is_dropped_and_counted() -> None:
    async def story() -> None:
        box = Box()
        assert not box.datagrams.send(("127.0.0.1", 9), b"before it is open")
        async with opened(box):
            assert not box.datagrams.send(("::1", 9), b"another family")
            assert box.datagrams.counts.unsent == 1
        assert not box.datagrams.send(("127.0.0.1", 9), b"after it is closed")

    asyncio.run(story())


def test_a_port_that_is_taken_is_an_error_and_leaves_no_socket() -> None:
    async def story() -> None:
        one, other = Box(), Box()
        async with opened(one) as (here,):
            with pytest.raises(OSError, match="in use"):
                await other.datagrams.open_socket(here)
            assert not other.datagrams.is_open

    asyncio.run(story())


def test_names_are_looked_up() -> None:
    async def story() -> None:
        assert numeric(parse("localhost:7")) is None
        assert await look_up(parse("localhost:7")) in {("127.0.0.1", 7), ("::1", 7)}
        assert await look_up(parse("[::1]:7")) == ("::1", 7)

    asyncio.run(story())

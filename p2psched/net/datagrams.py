"""Datagrams between the peers of one cluster: UDP at the port of the listener, each sealed.

The seal is a keyed digest of the body, with a key made of the cluster's secret and its id: what
somebody else sends, or a peer of another cluster, is dropped and counted. Nothing is encrypted,
as on links. Sending never waits and keeps nothing: what the socket doesn't take is dropped, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2psched.model.gossip import BODY_BYTES_MAX, DATAGRAM_BYTES_MAX
from p2psched.model.ids import ClusterId
from p2psched.net.address import Address

log = logging.getLogger(__name__)

VERSION: Final = b"\x01"  # of what is sealed and how; another one is no datagram of ours
MAC_BYTES: Final = 12
SEAL_BYTES: Final = len(VERSION) + MAC_BYTES
IP_UDP_BYTES: Final = 28  # heads that the network adds to each, over IPv4
_TURN_MAX: Final = 64  # datagrams in one turn of the event loop: others get theirs, too

assert BODY_BYTES_MAX + SEAL_BYTES <= DATAGRAM_BYTES_MAX

Where = tuple[str, int]  # an IP address and a port


class Seal:
    """Of one cluster."""

    def __init__(self, secret: bytes, cluster: ClusterId) -> None:
        self._key = hashlib.blake2b(secret + cluster.encode(), person=b"p2ps-gossip").digest()

    def seal(self, body: bytes) -> bytes:
        return VERSION + self._mac(body) + body

    def open(self, data: bytes) -> bytes | None:
        """The body, if it was sealed by a peer of the cluster."""
        body = data[SEAL_BYTES:]
        if not data.startswith(VERSION) or len(data) > DATAGRAM_BYTES_MAX:
            return None
        return body if hmac.compare_digest(data[1:SEAL_BYTES], self._mac(body)) else None

    def _mac(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=MAC_BYTES).digest()


@dataclass(slots=True)
class DatagramCounts:
    """Since the socket was opened. Bytes are with the heads of IP and UDP."""

    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    foreign: int = 0  # not sealed by a peer of this cluster
    unsent: int = 0  # that the socket did not take


class Datagrams:
    """A socket from `open_socket` to `close`. `on_datagram` must not raise."""

    def __init__(self, seal: Seal, on_datagram: Callable[[str, bytes], None]) -> None:
        """`on_datagram`: where it came from, and the body."""
        self._seal = seal
        self._on_datagram = on_datagram
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.counts = DatagramCounts()

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    async def open_socket(self, address: Address) -> None:
        """Raises OSError if the port can't be had."""
        assert self._socket is None
        loop = self._loop = asyncio.get_running_loop()
        host, port = await look_up(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.bind((host, port))
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        loop.add_reader(sock, self._on_readable)

    def send(self, where: Where, body: bytes) -> bool:
        """False if it was dropped."""
        assert len(body) <= BODY_BYTES_MAX
        if self._socket is None:
            return False
        data = self._seal.seal(body)
        try:
            self._socket.sendto(data, where)
        except OSError:  # no room, no route, or an address of another family
            self.counts.unsent += 1
            return False
        self.counts.sent += 1
        self.counts.sent_bytes += len(data) + IP_UDP_BYTES
        return True

    def close(self) -> None:
        """Twice does no harm."""
        sock, self._socket = self._socket, None
        if sock is not None:
            assert self._loop is not None
            self._loop.remove_reader(sock)
            sock.close()

    def _on_readable(self) -> None:
        for _ in range(_TURN_MAX):
            if self._socket is None:
                return
            try:
                data, source = self._socket.recvfrom(DATAGRAM_BYTES_MAX + 1)
            except OSError:  # nothing more, or news of one that was sent and did not arrive
                return
            body = self._seal.open(data)
            if body is None:
                self.counts.foreign += 1
                continue
            self.counts.received += 1
            self.counts.received_bytes += len(data) + IP_UDP_BYTES
            self._on_datagram(str(Address(source[0].partition("%")[0], source[1])), body)


def numeric(address: Address) -> Where | None:
    """None if its host is a name."""
    try:
        return str(ipaddress.ip_address(address.host)), address.port
    except ValueError:
        return None


async def look_up(address: Address) -> Where:
    """Raises OSError if there is no such host."""
    where = numeric(address)
    if where is None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
        where = (str(found[0][4][0]), address.port)
    return where

"""Addresses as people write them: `host:port`, `host`, `[::1]:7420`.

An address says where a peer is reached, never who it is. A missing host is refused: `:7420` means
"everywhere" to some programs and "here" to others, and the difference is who can reach the peer.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

from p2psched.model.errors import UsageError

DEFAULT_PORT: Final = 7420
HOST_LEN_MAX: Final = 253  # of a DNS name
_EXAMPLES: Final = "write it like 192.168.1.20:7420, name.example:7420 or [::1]:7420"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port. `str()` gives the form that `parse` reads."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port {self.port} is not in 0 to 65535: {_EXAMPLES}")
        if not _is_host(self.host):
            raise UsageError(f"{self.host[:HOST_LEN_MAX]!r} is not a host: {_EXAMPLES}")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str, *, default_port: int = DEFAULT_PORT) -> Address:
    """Read an address. Raises UsageError with examples. Looks nothing up."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(f"{text[:HOST_LEN_MAX]!r} is not an address: {_EXAMPLES}")
        return Address(host, _port(rest[1:], text) if rest else default_port)
    if text.count(":") > 1:  # a bare IPv6 address: a port could not be told from its last group
        return Address(text, default_port)
    host, colon, port = text.partition(":")
    if not host:
        raise UsageError(
            f"{text[:HOST_LEN_MAX]!r} names no host: write 127.0.0.1{text or f':{default_port}'} "
            f"for this machine alone, 0.0.0.0{text or f':{default_port}'} for every network"
        )
    return Address(host, _port(port, text) if colon else default_port)


def is_loopback(host: str) -> bool:
    """True if all that `host` resolves to is this machine alone. Blocks; raises UsageError."""
    return all(ipaddress.ip_address(found).is_loopback for found in _resolve(host))


def _resolve(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"no address found for host {host!r}: check its spelling, or use an IP address"
        ) from error
    return [str(entry[4][0]).partition("%")[0] for entry in found]


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise UsageError(f"{text[:16]!r} is not a port, in {whole[:HOST_LEN_MAX]!r}: {_EXAMPLES}")
    return int(text)


def _is_host(host: str) -> bool:
    if not 0 < len(host) <= HOST_LEN_MAX:
        return False
    if ":" in host:
        try:
            return ipaddress.ip_address(host).version == 6
        except ValueError:
            return False
    try:
        host.encode("idna")  # what the resolver does first; it refuses empty and overlong labels
    except UnicodeError:
        return False
    return host.isprintable() and not any(mark in host for mark in " /@[]\\\"'")

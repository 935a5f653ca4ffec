"""Options of TCP sockets, and their names for people."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from typing import Final

log = logging.getLogger(__name__)

# A link whose bytes nobody acknowledges for so long is cut off: reconnecting beats waiting for
# TCP's own retries, which back off to minutes and would keep a healed link silent.
ACKNOWLEDGE_TIMEOUT_MS: Final = 5_000


def tune(transport: asyncio.BaseTransport) -> None:
    """Small frames leave at once, and a dead other end is noticed in seconds, not in minutes."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", ACKNOWLEDGE_TIMEOUT_MS),
    ):
        if (option := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    try:
        for level, option, value in options:
            sock.setsockopt(level, option, value)
    except OSError as error:  # the other side may be gone already; reading will tell
        log.debug("socket-options-refused", extra={"error": str(error)})


def listening_at(host: str, port: int, *, backlog: int) -> socket.socket | None:
    """A socket that listens at an IP address; None if `host` is a name. Raises OSError.

    uvloop would look even an address up, in four threads that stay for as long as the process: a
    program that embeds a peer should not get them.
    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    sock = socket.create_server((host, port), family=family, backlog=backlog)
    sock.setblocking(False)
    return sock


def peer_name(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "an unknown address"


def is_here(transport: asyncio.BaseTransport) -> bool:
    """True if the other end is on this machine: no byte of it crosses a network. A tunnel that
    ends here looks the same."""
    near, far = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    if isinstance(near, tuple) and isinstance(far, tuple):
        return bool(near[0] == far[0])
    sock = transport.get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX

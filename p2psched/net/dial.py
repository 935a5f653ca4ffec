"""Connecting to a peer, as a client or as another peer.

Errors name the address and say what to do. It refuses whatever does not open like a peer that
knows the secret. The opening has its own limit, HANDSHAKE_TIMEOUT_S; a shorter one is the caller's.
"""

from __future__ import annotations

import asyncio
import socket

from p2psched.model.errors import ProtocolError, Refused, Unavailable
from p2psched.model.limits import HANDSHAKE_TIMEOUT_S
from p2psched.net.address import Address, parse
from p2psched.net.auth import ClientOpening, Identity
from p2psched.net.link import Connection, Handlers


async def connect(
    address: Address | str, *, identity: Identity, secret: bytes, handlers: Handlers
) -> Connection:
    """An open connection. `identity` without a peer id connects as a client.

    Raises UsageError for what is no address, Unavailable if nobody answers there (try again),
    Refused if the one who answers is no p2psched peer, or of another cluster, or knows another
    secret. Cancelled, it leaves no connection behind.
    """
    target = parse(address) if isinstance(address, str) else address
    loop = asyncio.get_running_loop()
    connection = Connection(ClientOpening(identity, secret), handlers, address=str(target))
    connection.opened = opened = loop.create_future()
    done = False
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            await loop.create_connection(lambda: connection, target.host, target.port)
            await opened
        done = True
    except TimeoutError as error:
        raise Unavailable(f"{target} did not answer in time") from error
    except socket.gaierror as error:
        raise Unavailable(f"no address found for the host of {target}: {error.strerror}") from error
    except OSError as error:
        raise Unavailable(
            f"nobody answers at {target} ({_reason(error)}): is the peer running, "
            "and is the address right?"
        ) from error
    except ProtocolError as error:
        raise Refused(
            f"what answers at {target} is not a p2psched peer, or of another version: {error}"
        ) from error
    finally:
        if not done:
            connection.abort()
            if not opened.cancel() and not opened.cancelled():
                opened.exception()  # what ended it first is what the caller hears
    return connection


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error)

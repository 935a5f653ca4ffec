"""How a connection opens: the first four messages, and the one that ends it (see `net.auth`)."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import ClusterId, PeerId

PROTOCOL_VERSION = 1


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """First frame, from the side that connects."""

    version: int
    nonce: bytes  # 32 random bytes
    peer: PeerId | None = None  # None: a client
    address: str = ""  # a peer's advertised address
    cluster: ClusterId | None = None  # None: not known yet (clients, joiners)


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The answer. The proof shows that this side knows the secret."""

    version: int
    nonce: bytes
    proof: bytes
    peer: PeerId
    cluster: ClusterId


class Proof(msgspec.Struct, frozen=True, array_like=True, tag=3):
    proof: bytes


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Last frame of the opening: from here on both sides are known."""


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The other side refuses this connection, and why. It closes afterwards."""

    code: str
    message: str


Opening = Hello | Challenge | Proof | Welcome | Goodbye

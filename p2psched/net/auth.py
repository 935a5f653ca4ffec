"""The opening of a connection: both sides prove that they know the cluster's secret. No I/O.

    Hello(nonce) ->   <- Challenge(nonce, proof)   Proof(proof) ->   <- Welcome

A proof is an HMAC-SHA256 with the secret over a label of its side and every field of `Hello` and
`Challenge`, so that no field can be changed and no proof can be sent back to where it came from.
The connecting side checks the other one's proof before it gives its own: whoever merely listens at
a peer's address learns no proof of ours.

It refuses: another version, another cluster, a wrong proof, the peer's own identity, and every
message that is not the next one of the opening. A side that fails its proof is told one line and
nothing of what was expected. It does not encrypt: who can alter packets between two machines can
still take over an opened connection.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2psched.model.errors import P2PSchedError, ProtocolError, Refused, Unavailable
from p2psched.model.ids import ClusterId, PeerId, is_id, short
from p2psched.model.messages import Message
from p2psched.model.opening_messages import (
    PROTOCOL_VERSION,
    Challenge,
    Goodbye,
    Hello,
    Opening,
    Proof,
    Welcome,
)

SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 32
ADDRESS_LEN_MAX: Final = 280
_REASON_LEN_MAX: Final = 200
_SERVER_LABEL: Final = b"p2psched/1 server"
_CLIENT_LABEL: Final = b"p2psched/1 client"
_MISMATCH: Final = "the cluster secret does not match"
_SECRET_HINT: Final = (
    f"{_MISMATCH}: use the same secret on both sides, with --secret-file or by copying "
    "the secret from a peer that is in the cluster"
)

Nonce = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who one side of a connection is. A client has neither identity nor address."""

    peer: PeerId | None = None
    address: str = ""  # where others reach this peer, host:port
    cluster: ClusterId | None = None  # None: not known yet


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a message: frames to send, and then who the other side is, or an error
    after which the connection is closed. With neither, wait for the next message."""

    send: tuple[Opening, ...] = ()
    remote: Identity | None = None
    error: P2PSchedError | None = None


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def new_nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


class _State(enum.Enum):
    NEW = enum.auto()
    WAIT_CHALLENGE = enum.auto()
    WAIT_PROOF = enum.auto()
    WAIT_WELCOME = enum.auto()
    DONE = enum.auto()


class ClientOpening:
    """The side that connects: `start`, then `on_message` until it names the other side."""

    def __init__(self, own: Identity, secret: bytes, *, nonce: Nonce = new_nonce) -> None:
        self._own = own
        self._secret = secret
        self._hello = Hello(
            version=PROTOCOL_VERSION,
            nonce=nonce(),
            peer=own.peer,
            address=own.address,
            cluster=own.cluster,
        )
        self._remote: Identity | None = None
        self._state = _State.NEW

    @property
    def only_asks(self) -> bool:
        """As a client: nothing but answers comes back."""
        return self._own.peer is None

    def start(self) -> Step:
        assert self._state is _State.NEW
        self._state = _State.WAIT_CHALLENGE
        return Step(send=(self._hello,))

    def on_message(self, message: Message) -> Step:
        match message, self._state:
            case Goodbye(code=code, message=text), _:
                self._state = _State.DONE
                return Step(error=farewell(code, text))
            case Challenge(), _State.WAIT_CHALLENGE:
                return self._on_challenge(message)
            case Welcome(), _State.WAIT_WELCOME:
                self._state = _State.DONE
                return Step(remote=self._remote)
            case _:
                self._state = _State.DONE
                return Step(error=_unexpected(message))

    def _on_challenge(self, challenge: Challenge) -> Step:
        self._state = _State.DONE
        if challenge.version != PROTOCOL_VERSION:
            return Step(error=Refused(_other_version(challenge.version)))
        if not _is_sound(challenge.nonce, challenge.peer, "", challenge.cluster or None):
            return Step(error=ProtocolError("a challenge with impossible fields"))
        expected = _proof(self._secret, _SERVER_LABEL, self._hello, challenge)
        if not hmac.compare_digest(expected, challenge.proof):
            return _refuse(_MISMATCH, _SECRET_HINT)
        if challenge.peer == self._own.peer:
            return _refuse(_same_peer(challenge.peer))
        cluster = challenge.cluster or None
        if self._own.cluster is not None and cluster not in {None, self._own.cluster}:
            return _refuse(_other_cluster(cluster, self._own.cluster))
        self._remote = Identity(peer=challenge.peer, cluster=cluster)
        self._state = _State.WAIT_WELCOME
        return Step(send=(Proof(_proof(self._secret, _CLIENT_LABEL, self._hello, challenge)),))


class ServerOpening:
    """The side that was connected to. `own.peer` must be known."""

    only_asks = False

    def __init__(self, own: Identity, secret: bytes, *, nonce: Nonce = new_nonce) -> None:
        assert own.peer is not None
        self._own = own
        self._peer: PeerId = own.peer
        self._secret = secret
        self._nonce = nonce
        self._hello: Hello | None = None
        self._expected = b""
        self._state = _State.NEW

    def start(self) -> Step:
        assert self._state is _State.NEW
        return Step()

    def on_message(self, message: Message) -> Step:
        match message, self._state:
            case Hello(), _State.NEW:
                return self._on_hello(message)
            case Proof(proof=proof), _State.WAIT_PROOF:
                return self._on_proof(proof)
            case Goodbye(code=code, message=text), _:
                self._state = _State.DONE
                return Step(error=farewell(code, text))
            case _:
                self._state = _State.DONE
                return Step(error=_unexpected(message))

    def _on_hello(self, hello: Hello) -> Step:
        self._state = _State.DONE
        if hello.version != PROTOCOL_VERSION:
            return _refuse(_other_version(hello.version))
        if not _is_sound(hello.nonce, hello.peer, hello.address, hello.cluster):
            return Step(error=ProtocolError("a hello with impossible fields"))
        if hello.peer == self._peer:
            return _refuse(_same_peer(self._peer))
        challenge = Challenge(
            version=PROTOCOL_VERSION,
            nonce=self._nonce(),
            proof=b"",
            peer=self._peer,
            cluster=self._own.cluster or ClusterId(""),
        )
        self._hello = hello
        self._expected = _proof(self._secret, _CLIENT_LABEL, hello, challenge)
        self._state = _State.WAIT_PROOF
        proof = _proof(self._secret, _SERVER_LABEL, hello, challenge)
        return Step(
            send=(
                Challenge(
                    version=challenge.version,
                    nonce=challenge.nonce,
                    proof=proof,
                    peer=challenge.peer,
                    cluster=challenge.cluster,
                ),
            )
        )

    def _on_proof(self, proof: bytes) -> Step:
        assert self._hello is not None
        self._state = _State.DONE
        if not hmac.compare_digest(self._expected, proof):
            return _refuse(_MISMATCH, _SECRET_HINT)
        hello = self._hello
        # Only now: the name of this cluster in an error is for those who are allowed to know it.
        if hello.cluster is not None and self._own.cluster not in {None, hello.cluster}:
            return _refuse(_other_cluster(self._own.cluster, hello.cluster))
        remote = Identity(peer=hello.peer, address=hello.address, cluster=hello.cluster)
        return Step(send=(Welcome(),), remote=remote)


def _proof(secret: bytes, label: bytes, hello: Hello, challenge: Challenge) -> bytes:
    """Every field goes in behind its length, so that no two openings give the same bytes."""
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for field in (
        label,
        hello.version,
        hello.nonce,
        hello.peer,
        hello.address,
        hello.cluster,
        challenge.version,
        challenge.nonce,
        challenge.peer,
        challenge.cluster,
    ):
        data = field if isinstance(field, bytes) else str(field).encode()
        digest.update(b"-" if field is None else b"%d:" % len(data))
        digest.update(b"" if field is None else data)
    return digest.digest()


def _is_sound(nonce: bytes, peer: PeerId | None, address: str, cluster: ClusterId | None) -> bool:
    return (
        len(nonce) == NONCE_BYTES
        and (peer is None or is_id(peer))
        and (cluster is None or is_id(cluster))
        and len(address) <= ADDRESS_LEN_MAX
        and address.isprintable()
    )


def _refuse(told: str, raised: str = "") -> Step:
    """Say goodbye with one line, and raise what the person on this side can use."""
    return Step(send=(Goodbye(code=Refused.code, message=told),), error=Refused(raised or told))


def farewell(code: str, text: str) -> P2PSchedError:
    """What a goodbye means here. It may come from anybody, so it is cleaned and cut."""
    if text == _MISMATCH:
        return Refused(_SECRET_HINT)
    clean = "".join(mark if mark.isprintable() else "?" for mark in text[:_REASON_LEN_MAX])
    kind = Unavailable if code == Unavailable.code else Refused
    return kind(clean or "the other side refused this connection")


def _unexpected(message: Message) -> ProtocolError:
    return ProtocolError(f"{type(message).__name__} is not what comes next in an opening")


def _same_peer(peer: PeerId) -> str:
    return (
        f"both ends are peer {short(peer)}: its own address was given as another peer's, "
        "or its folder was copied; each peer needs a folder of its own"
    )


def _other_cluster(theirs: ClusterId | None, ours: ClusterId) -> str:
    known = short(theirs) if theirs else "none"
    return (
        f"another cluster: {known} was reached, {short(ours)} was expected; "
        "check the address, or use a new folder to join another cluster; one that was restored or "
        "recovered is another one"
    )


def _other_version(version: int) -> str:
    return (
        f"protocol version {version} met version {PROTOCOL_VERSION}: "
        "install the same version of p2psched on both machines"
    )

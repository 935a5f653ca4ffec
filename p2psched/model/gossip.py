"""What peers tell each other in gossip, and how it looks in a datagram (ADR 0049).

MessagePack arrays without names, identities as 16 bytes, and what is empty at the end left out: an
idle group sends little else than the fixed part. What comes from outside is decoded at this door:
bytes become values or a ValueError.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec

from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

DATAGRAM_BYTES_MAX: Final = 1_400  # with its seal: fits what an Ethernet or a tunnel carries whole
BODY_BYTES_MAX: Final = DATAGRAM_BYTES_MAX - 16  # what is left for `encode`
NEWS_BYTES_MAX: Final = 1_024  # of one news; fits a datagram with anything that must be there
ADDRESS_BYTES_MAX: Final = 255
TOPICS: Final = 4  # kinds of news, 0 to 3
SEQUENCE_MAX: Final = 0xFFFF  # numbers of questions start again behind it
ACCUSER_BYTES: Final = 4  # of an identity: enough to tell apart who suspects one peer
_ITEMS_MAX: Final = 64  # of each kind in one datagram

_Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What is said of a peer as of one of its incarnations: the life, which is that of the ledger,
    and a number that it raises to refute what is not true."""

    peer: PeerId
    life: int
    number: int
    liveness: Liveness
    address: str = ""  # while it is alive
    deaf: bool = False  # it hears no datagrams: everything goes over links
    accuser: bytes = b""  # who suspects it, in short


class Item(msgspec.Struct, frozen=True, gc=False):
    """Opaque news of a peer. The newest number of a life and topic counts."""

    peer: PeerId
    life: int
    number: int
    topic: int
    data: bytes


class Kind(enum.IntEnum):
    PING = 0
    ASK = 1  # ping `target` for me
    ACK = 2
    NACK = 3  # of an `ASK`: it has not answered yet, but I have
    GOSSIP = 4  # nothing but what it carries


class Datagram(msgspec.Struct, frozen=True, gc=False):
    kind: Kind
    sender: PeerId
    sequence: int = 0
    standings: tuple[Standing, ...] = ()
    news: tuple[Item, ...] = ()
    target: PeerId | None = None


class _Said(msgspec.Struct, frozen=True, array_like=True, gc=False):
    peer: _Id
    life: _Number
    number: _Number
    state: Annotated[int, msgspec.Meta(ge=0, lt=8)]  # liveness, and 4 if deaf
    more: Annotated[bytes, msgspec.Meta(max_length=ADDRESS_BYTES_MAX)] = b""


class _Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    peer: _Id
    life: _Number
    number: _Number
    topic: Annotated[int, msgspec.Meta(ge=0, lt=TOPICS)]
    data: Annotated[bytes, msgspec.Meta(max_length=NEWS_BYTES_MAX)]


class _Datagram(msgspec.Struct, frozen=True, array_like=True, gc=False):
    kind: Kind
    sender: _Id
    sequence: Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_MAX)] = 0
    standings: Annotated[tuple[_Said, ...], msgspec.Meta(max_length=_ITEMS_MAX)] = ()
    news: Annotated[tuple[_Item, ...], msgspec.Meta(max_length=_ITEMS_MAX)] = ()
    target: _Id | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_datagrams: Final = msgspec.msgpack.Decoder(_Datagram)
_said: Final = msgspec.msgpack.Decoder(tuple[_Said, ...])
_LIVENESS: Final = tuple(Liveness)  # by number; quicker than to ask the class
_items: Final = msgspec.msgpack.Decoder(tuple[_Item, ...])


def encode(datagram: Datagram) -> bytes:
    fields: list[object] = [
        int(datagram.kind),
        bytes.fromhex(datagram.sender),
        datagram.sequence,
        [_of_standing(standing) for standing in datagram.standings],
        [_of_item(item) for item in datagram.news],
        bytes.fromhex(datagram.target) if datagram.target is not None else None,
    ]
    while not fields[-1]:
        fields.pop()  # stops at the sender at the latest
    return _encoder.encode(fields)


def decode(data: bytes) -> Datagram:
    """Raises ValueError."""
    found = _datagrams.decode(data)
    return Datagram(
        found.kind,
        _peer(found.sender),
        found.sequence,
        tuple(map(_standing, found.standings)),
        tuple(map(_news, found.news)),
        _peer(found.target) if found.target is not None else None,
    )


def encode_standings(standings: Iterable[Standing]) -> bytes:
    """For a call over a link."""
    return _encoder.encode([_of_standing(standing) for standing in standings])


def decode_standings(data: bytes) -> Sequence[Standing]:
    """Raises ValueError."""
    return [_standing(said) for said in _said.decode(data)]


def encode_news(items: Iterable[Item]) -> bytes:
    return _encoder.encode([_of_item(item) for item in items])


def decode_news(data: bytes) -> Sequence[Item]:
    """Raises ValueError."""
    return [_news(item) for item in _items.decode(data)]


def size_of_standing(standing: Standing) -> int:
    """In a datagram. Reckoned and not encoded, for it is asked of each rumour that comes."""
    more = len(standing.accuser) or len(standing.address.encode())
    size = 2 + _size_of_bytes(len(standing.peer) // 2)  # with the head of the array, and the state
    size += _size_of_int(standing.life) + _size_of_int(standing.number)
    return size + (_size_of_bytes(more) if more else 0)


def _size_of_bytes(length: int) -> int:
    return length + (2 if length < 1 << 8 else 3 if length < 1 << 16 else 5)


def _size_of_int(value: int) -> int:
    """Of one that is not negative."""
    if value < 1 << 8:
        return 1 if value < 1 << 7 else 2
    return 3 if value < 1 << 16 else 5 if value < 1 << 32 else 9


def size_of_item(item: Item) -> int:
    """In a datagram."""
    return len(_encoder.encode(_of_item(item)))


def accuser(peer: PeerId) -> bytes:
    return bytes.fromhex(peer)[:ACCUSER_BYTES]


def _of_standing(standing: Standing) -> list[object]:
    state = int(standing.liveness) | (4 if standing.deaf else 0)
    fields = [bytes.fromhex(standing.peer), standing.life, standing.number, state]
    more = standing.accuser or standing.address.encode()
    return [*fields, more] if more else [*fields]


def _standing(said: _Said) -> Standing:
    liveness, deaf = _LIVENESS[said.state & 3], bool(said.state & 4)
    peer, more = _peer(said.peer), said.more
    if liveness is Liveness.ALIVE:  # an address that is no text is a ValueError, too
        return Standing(peer, said.life, said.number, liveness, more.decode(), deaf)
    if liveness is Liveness.SUSPECT and len(more) == ACCUSER_BYTES:
        return Standing(peer, said.life, said.number, liveness, deaf=deaf, accuser=more)
    return Standing(peer, said.life, said.number, liveness, deaf=deaf)


def _of_item(item: Item) -> list[object]:
    return [bytes.fromhex(item.peer), item.life, item.number, item.topic, item.data]


def _news(item: _Item) -> Item:
    return Item(_peer(item.peer), item.life, item.number, item.topic, item.data)


def _peer(identity: bytes) -> PeerId:
    return PeerId(identity.hex())

"""Gossip in bytes: small, and nothing gets in that a peer of ours would not send."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model.gossip import (
    ACCUSER_BYTES,
    NEWS_BYTES_MAX,
    SEQUENCE_MAX,
    TOPICS,
    Datagram,
    Item,
    Kind,
    Standing,
    decode,
    decode_news,
    decode_standings,
    encode,
    encode_news,
    encode_standings,
    size_of_item,
    size_of_standing,
)
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

PEERS = st.binary(min_size=16, max_size=16).map(lambda identity: PeerId(identity.hex()))
NUMBERS = st.integers(0, 2**62 - 1)
ADDRESSES = st.text(max_size=60).filter(lambda text: "\x00" not in text)
ACCUSERS = st.binary(min_size=ACCUSER_BYTES, max_size=ACCUSER_BYTES)
STANDINGS = st.one_of(
    st.builds(Standing, PEERS, NUMBERS, NUMBERS, st.just(Liveness.ALIVE), ADDRESSES, st.booleans()),
    st.builds(
        Standing,
        *(PEERS, NUMBERS, NUMBERS, st.just(Liveness.SUSPECT)),
        accuser=st.one_of(ACCUSERS, st.just(b"")),
    ),
    st.builds(Standing, PEERS, NUMBERS, NUMBERS, st.sampled_from([Liveness.DEAD, Liveness.LEFT])),
)
NEWS = st.builds(
    Item, PEERS, NUMBERS, NUMBERS, st.integers(0, TOPICS - 1), st.binary(max_size=NEWS_BYTES_MAX)
)
DATAGRAMS = st.builds(
    Datagram,
    st.sampled_from(Kind),
    PEERS,
    st.integers(0, SEQUENCE_MAX),
    st.lists(STANDINGS, max_size=4).map(tuple),
    st.lists(NEWS, max_size=2).map(tuple),
    st.none() | PEERS,
)
ME = PeerId("ab" * 16)


@given(DATAGRAMS)
def test_what_is_sent_is_what_arrives(datagram: Datagram) -> None:
    assert decode(encode(datagram)) == datagram


@given(st.lists(STANDINGS, max_size=5), st.lists(NEWS, max_size=3))
def test_what_a_comparison_tells_arrives(standings: list[Standing], news: list[Item]) -> None:
    assert list(decode_standings(encode_standings(standings))) == standings
    assert list(decode_news(encode_news(news))) == news


@given(st.binary(max_size=200))
def test_any_bytes_are_a_datagram_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(data)


@given(DATAGRAMS, st.data())
def test_a_cut_datagram_is_a_value_error_or_another_datagram(
    datagram: Datagram, data: st.DataObject
) -> None:
    whole = encode(datagram)
    with contextlib.suppress(ValueError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(STANDINGS, NEWS)
def test_sizes_are_those_of_the_parts(standing: Standing, item: Item) -> None:
    bare = len(encode(Datagram(Kind.ACK, ME, 7, (), (item,))))
    both = len(encode(Datagram(Kind.ACK, ME, 7, (standing,), (item,))))
    assert both - bare == size_of_standing(standing)
    assert bare - len(encode(Datagram(Kind.ACK, ME, 7))) == size_of_item(item) + 2  # two lengths


def test_a_ping_of_an_idle_group_is_as_small_as_an_identity_and_a_number() -> None:
    assert len(encode(Datagram(Kind.PING, ME, SEQUENCE_MAX))) <= 23


@pytest.mark.parametrize(
    "field",
    [
        "83a16101a16202a16303",  # a map
        "9209c410" + "ab" * 16,  # a kind that there is not
        "9200c40f" + "ab" * 15,  # an identity that is none
        "9300c410" + "ab" * 16 + "ff",  # a number below 0
    ],
)
def test_what_no_peer_says_is_refused(field: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(bytes.fromhex(field))

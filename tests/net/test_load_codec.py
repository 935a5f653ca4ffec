"""Load reports on the wire: small, and nothing else than load reports."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import p2psched
from p2psched.model.load import LoadReport
from p2psched.model.load_news import FIELDS, LoadNews, WholeLoad, delta
from p2psched.net.load_codec import (
    DICTIONARY,
    INFLATED_MAX,
    LoadCodec,
    compressor,
    dictionary_path,
)
from p2psched.testing.sim_load import SimPeerLoad, said

CODEC = LoadCodec()
plain_of = msgspec.msgpack.Encoder().encode


def reports(seed: int) -> list[bytes]:
    """As MessagePack; of seeds that the dictionary was not trained on."""
    peer = SimPeerLoad(random.Random(f"codec {seed}"), jobs_per_min=20)
    found = said(peer, plain_of, seconds=300, bytes_s=100)
    return [news.data for _, _, news in found if news is not None]


def news_of(plain: bytes) -> LoadNews:
    news: LoadNews = msgspec.msgpack.decode(plain, type=LoadNews)
    return news


@pytest.mark.parametrize("seed", range(4))
def test_what_is_encoded_is_decoded_and_never_longer_than_without(seed: int) -> None:
    plains = reports(seed)
    assert len(plains) > 20
    for plain in plains:
        data = CODEC.encode(news_of(plain))
        assert len(data) <= len(plain)
        assert CODEC.decode(data) == news_of(plain)


def test_without_a_dictionary_small_reports_only_grow_and_with_it_whole_ones_shrink() -> None:
    plains = [plain for seed in range(12) for plain in reports(seed)]
    without = compressor(None)
    wholes = [plain for plain in plains if isinstance(news_of(plain), WholeLoad)]
    deltas = [plain for plain in plains if not isinstance(news_of(plain), WholeLoad)]
    for some in (wholes, deltas):
        assert sum(len(without.compress(plain)) for plain in some) > sum(map(len, some))
    with_it = sum(len(CODEC.encode(news_of(plain))) for plain in wholes)
    assert with_it < 0.9 * sum(map(len, wholes))


def test_the_dictionary_lies_in_the_package_and_is_the_one_that_shipped() -> None:
    """What was written with a number is read with it for ever: a new one gets a new number."""
    path = dictionary_path(DICTIONARY)
    assert path.is_relative_to(p2psched.__path__[0])
    assert zstandard.ZstdCompressionDict(path.read_bytes()).dict_id() == 351847764


# --- from outside ---------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_bytes_are_a_load_report_or_a_value_error(data: bytes) -> None:
    try:
        CODEC.decode(data)
    except ValueError:
        return


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 0.5])
def test_a_number_that_is_none_is_a_value_error(number: float) -> None:
    values = list(msgspec.to_builtins(LoadReport(number=1)))
    values[FIELDS.index("cpu")] = number
    with pytest.raises(ValueError, match="no load report"):
        CODEC.decode(plain_of([110, values]))


def test_a_form_that_is_not_known_here_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="form that is not known"):
        CODEC.decode(bytes((DICTIONARY + 1,)) + b"abc")
    with pytest.raises(ValueError, match="empty"):
        CODEC.decode(b"")


@pytest.mark.parametrize("says_its_size", [True, False])
def test_a_bomb_is_inflated_as_far_as_its_limit_only(says_its_size: bool) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=says_its_size
    )
    bomb = zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(1 << 30))
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match=f"more than {INFLATED_MAX:,}"):
        CODEC.decode(bytes((DICTIONARY,)) + bomb)


def test_a_damaged_report_is_a_value_error_or_another_report_but_no_crash() -> None:
    base = LoadReport(number=1, slots=8, cores=8, memory=16_000, memory_free=9_000)
    whole = CODEC.encode(WholeLoad(base))
    change = CODEC.encode(delta(base, LoadReport(number=2, slots=8), FIELDS))
    for data in (whole, change):
        for at in range(len(data)):
            for flip in (1, 0x80, 0xFF):
                damaged = bytearray(data)
                damaged[at] ^= flip
                try:
                    CODEC.decode(bytes(damaged))
                except ValueError:
                    continue


def test_deeply_nested_values_are_a_value_error() -> None:
    deep = b"\x95" + struct.pack("B", 111) + b"\x01\x02\x01" + b"\x91" * 100_000 + b"\x90"
    with pytest.raises(ValueError, match="no load report"):
        CODEC.decode(deep)

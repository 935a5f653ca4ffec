"""Digests of blobs: the same for any way of cutting, and different for any other bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.model import digests
from p2psched.model.digests import CHUNK_BYTES, DIGEST_BYTES, Hasher

# A few bytes around each border between chunks are what can go wrong.
SIZES = st.one_of(
    st.integers(0, 300),
    st.integers(CHUNK_BYTES - 2, CHUNK_BYTES + 2),
    st.integers(2 * CHUNK_BYTES - 2, 2 * CHUNK_BYTES + 2),
)
CUTS = st.lists(st.integers(0, 2 * CHUNK_BYTES + 2), max_size=6)


def blob_of(size: int) -> bytes:
    """Bytes that differ from place to place."""
    return b"".join(b"%08d" % number for number in range(size // 8 + 1))[:size]


def chunks_of(blob: bytes) -> list[bytes]:
    return [blob[at : at + CHUNK_BYTES] for at in range(0, len(blob), CHUNK_BYTES)]


@settings(max_examples=40, deadline=None)
@given(SIZES, CUTS)
def test_pieces_in_any_cut_give_the_same_digest(size: int, cuts: list[int]) -> None:
    blob = blob_of(size)
    hasher = Hasher()
    places = [0, *sorted(min(cut, size) for cut in cuts), size]
    for start, stop in itertools.pairwise(places):
        hasher.update(memoryview(blob)[start:stop])
    assert hasher.finish() == digests.digest_of(blob)
    assert hasher.size == size
    assert len(hasher.digests) == digests.chunk_count(size) == len(chunks_of(blob))


@settings(max_examples=40, deadline=None)
@given(SIZES)
def test_chunks_cover_a_blob_and_each_is_verified_by_itself(size: int) -> None:
    blob = blob_of(size)
    hasher = Hasher()
    hasher.update(blob)
    digest = hasher.finish()
    listed = digests.parse_list(b"".join(hasher.digests), size, digest)
    for number, chunk in enumerate(chunks_of(blob)):
        assert digests.chunk_size(size, number) == len(chunk)
        assert digests.fits(chunk, listed[number])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_a_chunk_is_found(data: st.DataObject) -> None:
    size = data.draw(SIZES.filter(bool))
    blob = blob_of(size)
    spoiled = bytearray(blob)
    place = data.draw(st.integers(0, size - 1))
    spoiled[place] ^= 1 << data.draw(st.integers(0, 7))
    hasher = Hasher()
    hasher.update(blob)
    hasher.finish()
    number = place // CHUNK_BYTES
    assert not digests.fits(chunks_of(bytes(spoiled))[number], hasher.digests[number])
    assert digests.digest_of(spoiled) != digests.digest_of(blob)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_a_list_is_found(data: st.DataObject) -> None:
    size = data.draw(SIZES.filter(bool))
    hasher = Hasher()
    hasher.update(blob_of(size))
    digest = hasher.finish()
    spoiled = bytearray(b"".join(hasher.digests))
    spoiled[data.draw(st.integers(0, len(spoiled) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="not the checksums"):
        digests.parse_list(bytes(spoiled), size, digest)


@given(st.binary(max_size=200), st.integers(0, 4 * CHUNK_BYTES))
def test_any_bytes_are_a_list_of_this_blob_or_a_value_error(data: bytes, size: int) -> None:
    digest = digests.digest_of(b"of this one")
    with pytest.raises(ValueError, match=r"checksums|chunk digests"):
        digests.parse_list(data, size, digest)


def test_a_list_that_is_too_long_or_too_short_is_refused() -> None:
    hasher = Hasher()
    hasher.update(bytes(CHUNK_BYTES + 1))
    digest = hasher.finish()
    whole = b"".join(hasher.digests)
    for wrong in (whole[:DIGEST_BYTES], whole[:-1], whole + bytes(DIGEST_BYTES), b""):
        with pytest.raises(ValueError, match="chunk digests"):
            digests.parse_list(wrong, CHUNK_BYTES + 1, digest)


def test_the_size_is_part_of_the_digest() -> None:
    listed = [bytes(DIGEST_BYTES)]
    assert digests.root(5, listed) != digests.root(6, listed)


def test_an_empty_blob_has_a_digest_and_no_chunks() -> None:
    assert digests.digest_of(b"") == Hasher().finish() == digests.root(0, [])
    assert digests.chunk_count(0) == 0


def test_the_digest_of_a_blob_is_that_of_every_version() -> None:
    assert digests.digest_of(b"hello").hex() == GOLDEN
    assert digests.file_name(digests.digest_of(b"hello")) == f"{GOLDEN[:2]}/{GOLDEN}"


GOLDEN = "3b484f4925ad5aa7f2fddd66f5cc8723b091d05af2845b4f35f7cb7b50e8a167"

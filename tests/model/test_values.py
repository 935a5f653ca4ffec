"""Packed values: what goes in comes out, and bytes from outside are a value or a ValueError."""

from __future__ import annotations

import contextlib
import pickle
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import limits, values
from p2psched.model.values import ALIGN, BLOB, BUFFERS, BUFFERS_MAX, MARK, NEEDS

REFS = st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, limits.BLOB_BYTES_MAX))
HOSTILE = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.integers(0, 5), st.binary(max_size=300)).map(
        lambda part: bytes((MARK, part[0])) + part[1]
    ),
    st.tuples(st.integers(0, 5), st.integers(0, 2**32 - 1), st.binary(max_size=300)).map(
        lambda part: struct.pack("<BBI", MARK, part[0], part[1]) + part[2]
    ),
)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), max_size=5))
def test_buffers_come_out_as_they_went_in_and_aligned(pickled: bytes, held: list[bytes]) -> None:
    packed = b"".join(values.pack_buffers(pickled, held))
    assert values.kind_of(packed) == BUFFERS
    assert values.refs_of(packed) == []
    first, others = values.unpack_buffers(packed)
    assert (bytes(first), [bytes(other) for other in others]) == (pickled, held)


@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=5))
def test_each_buffer_starts_at_a_multiple_of_the_alignment(held: list[bytes]) -> None:
    parts = values.pack_buffers(b"pickle", held)
    position = 0
    for part in parts:
        if any(part is one for one in held):
            assert position % ALIGN == 0
        position += len(part)


@given(REFS)
def test_the_name_of_a_blob_comes_out_as_it_went_in(ref: values.Ref) -> None:
    packed = values.pack_blob(ref)
    assert values.kind_of(packed) == BLOB
    assert values.blob_of(packed) == ref
    assert values.refs_of(packed) == [ref]


@given(st.lists(REFS, min_size=1, max_size=5), st.binary(max_size=100))
def test_names_of_blobs_and_the_value_behind_them_come_out(
    refs: list[values.Ref], value: bytes
) -> None:
    plain = b"\x80" + value  # what starts a pickle
    packed = values.pack_needs(refs, plain)
    found, inner = values.needs_of(packed)
    assert (found, bytes(inner)) == (refs, plain)
    assert values.refs_of(packed) == refs


@given(REFS, REFS)
def test_a_value_in_a_blob_that_needs_others_names_them_all(
    one: values.Ref, two: values.Ref
) -> None:
    assert values.refs_of(values.pack_needs([one], values.pack_blob(two))) == [one, two]


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists, max_leaves=5))
def test_neither_a_pickle_nor_messagepack_is_taken_for_a_marked_value(value: object) -> None:
    for packed in (pickle.dumps(value), pickle.dumps(value, 5)):
        assert values.kind_of(packed) == 0
    if not isinstance(value, int) or abs(value) < 2**63:
        try:
            packed = msgspec.msgpack.encode(value)
        except OverflowError:  # a large integer within
            return
        assert values.kind_of(packed) == 0


@given(HOSTILE)
def test_hostile_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    for read in (values.unpack_buffers, values.blob_of, values.needs_of, values.refs_of):
        with contextlib.suppress(ValueError):
            read(data)


@given(HOSTILE)
def test_what_hostile_bytes_name_is_within_the_bounds(data: bytes) -> None:
    try:
        refs = values.refs_of(data)
    except ValueError:
        return
    assert len(refs) <= limits.BLOBS_PER_JOB_MAX + 1
    assert all(len(digest) == 32 and size <= limits.BLOB_BYTES_MAX for digest, size in refs)


@given(st.data())
def test_a_value_that_was_cut_short_is_refused(data: st.DataObject) -> None:
    ref = (b"d" * 32, 7)
    packed, read = data.draw(
        st.sampled_from(
            [
                (b"".join(values.pack_buffers(b"pickle", [b"one", b"two"])), values.unpack_buffers),
                (values.pack_blob(ref), values.blob_of),
                (values.pack_needs([ref, ref], b""), values.needs_of),
            ]
        )
    )
    short = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(ValueError, match="not"):
        read(short)


def test_names_of_blobs_are_not_nested() -> None:
    ref = (b"d" * 32, 7)
    with pytest.raises(ValueError, match="inside"):
        values.needs_of(values.pack_needs([ref], values.pack_needs([ref], b"")))


@pytest.mark.parametrize(
    "packed",
    [
        struct.pack("<BBI", MARK, BUFFERS, BUFFERS_MAX + 1) + bytes(8 * (BUFFERS_MAX + 2)),
        struct.pack("<BBI", MARK, NEEDS, limits.BLOBS_PER_JOB_MAX + 1)
        + bytes(40 * (limits.BLOBS_PER_JOB_MAX + 1)),
        struct.pack("<BBI", MARK, NEEDS, 0),
        struct.pack("<BB32sQ", MARK, BLOB, b"", limits.BLOB_BYTES_MAX + 1),
    ],
    ids=["too many buffers", "too many names", "no names", "too large a blob"],
)
def test_what_is_beyond_a_bound_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a value|no blob"):
        (values.unpack_buffers if packed[1] == BUFFERS else values.refs_of)(packed)

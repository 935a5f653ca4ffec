"""Chunks give back what was packed, and anything else is a ValueError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import chunks

VALUES = st.lists(st.binary(max_size=20), max_size=12)


def _chunk(*numbers: int, data: bytes = b"") -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers) + data


@given(VALUES)
def test_a_chunk_gives_back_its_values_in_order(values: list[bytes]) -> None:
    chunk = chunks.pack(values)
    assert chunks.unpack(chunk) == values
    assert chunks.count(chunk) == len(values)


@given(VALUES, st.data())
def test_a_cut_holds_the_values_between_its_ends(values: list[bytes], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    assert chunks.cut(chunks.pack(values), start, stop) == chunks.pack(values[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 1), (0, 4), (4, 4)])
def test_a_cut_beyond_the_values_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="in a chunk of 3"):
        chunks.cut(chunks.pack([b"a", b"b", b"c"]), start, stop)


@given(VALUES, st.binary(min_size=1, max_size=9))
def test_a_chunk_with_more_bytes_behind_it_is_refused(values: list[bytes], more: bytes) -> None:
    with pytest.raises(ValueError, match="not a chunk"):
        chunks.unpack(chunks.pack(values) + more)


@given(VALUES, st.data())
def test_a_chunk_that_was_shortened_is_refused(values: list[bytes], data: st.DataObject) -> None:
    chunk = chunks.pack(values)
    size = data.draw(st.integers(0, len(chunk) - 1))
    with pytest.raises(ValueError, match="not a chunk"):
        chunks.unpack(chunk[:size])


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"", id="empty"),
        pytest.param(_chunk(0), id="no offsets"),
        pytest.param(_chunk(2**32 - 1, 0), id="a count beyond the bytes"),
        pytest.param(_chunk(2, 0, 3, 2, data=b"ab"), id="offsets run backwards"),
        pytest.param(_chunk(2, 0, 9, 2, data=b"ab"), id="an offset beyond the data"),
        pytest.param(_chunk(1, 1, 2, data=b"ab"), id="a byte before the first value"),
        pytest.param(_chunk(0, 2, data=b"ab"), id="bytes without a value"),
    ],
)
def test_bytes_with_wrong_lengths_are_no_chunk(chunk: bytes) -> None:
    with pytest.raises(ValueError, match="not a chunk"):
        chunks.unpack(chunk)


@given(
    st.binary(max_size=64)
    | st.builds(
        lambda numbers, data: _chunk(*numbers, data=data),
        st.lists(st.integers(0, 12), min_size=2, max_size=6),
        st.binary(max_size=12),
    )
)
def test_any_bytes_are_a_chunk_of_one_form_or_a_value_error(data: bytes) -> None:
    try:
        values = chunks.unpack(data)
    except ValueError:
        return
    assert chunks.pack(values) == data


@given(st.lists(st.integers(0, 5), max_size=70))
def test_a_chunk_passes_its_check_only_if_each_of_its_values_can_be_read(ends: list[int]) -> None:
    chunk = _chunk(len(ends), 0, *ends, data=b"x" * (ends[-1] if ends else 0))
    try:
        number = len(chunks.unpack(chunk))
    except ValueError:
        with pytest.raises(ValueError, match="not a chunk"):
            chunks.check(chunk)
    else:
        assert chunks.check(chunk) == number == len(ends)


@given(st.lists(st.integers(0, 3), max_size=200))
def test_offsets_in_order_pass_the_check(sizes: list[int]) -> None:
    assert chunks.check(chunks.pack([b"x" * size for size in sizes])) == len(sizes)


@given(VALUES, st.data())
def test_cutting_damaged_bytes_is_a_value_error_or_a_chunk(
    values: list[bytes], data: st.DataObject
) -> None:
    chunk = bytearray(chunks.pack(values))
    chunk[data.draw(st.integers(0, len(chunk) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        part = chunks.cut(bytes(chunk), 1, max(1, chunks.count(bytes(chunk)) - 1))
        assert chunks.pack(chunks.unpack(part)) == part
    except ValueError:
        return

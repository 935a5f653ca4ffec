"""Items carry a value or a failure with its output, and anything else is a ValueError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import items

HEADERS = st.dictionaries(
    st.sampled_from(["exit", "signal", "type", "message", "traceback", "stdout_total"]),
    st.integers(-(2**40), 2**40) | st.text(max_size=20),
)
BODIES = st.binary(max_size=30)


def _item(head: bytes, bodies: bytes = b"", *, size: int | None = None) -> bytes:
    return struct.pack("<I", len(head) if size is None else size) + head + bodies


@given(BODIES)
def test_a_bare_value_costs_four_bytes_and_comes_back(value: bytes) -> None:
    item = items.pack_value(value)
    assert len(item) == len(value) + 4
    assert items.unpack(item) == ({}, value, b"", b"")


@given(HEADERS, BODIES, BODIES, BODIES)
def test_an_item_gives_back_its_header_and_bodies(
    header: items.Header, value: bytes, stdout: bytes, stderr: bytes
) -> None:
    item = items.pack(header, value, stdout, stderr)
    assert items.unpack(item) == (header, value, stdout, stderr)


@given(HEADERS, BODIES, BODIES, st.data())
def test_an_item_that_was_shortened_or_lengthened_is_refused(
    header: items.Header, value: bytes, stderr: bytes, data: st.DataObject
) -> None:
    item = items.pack(header, value, b"", stderr)
    with pytest.raises(ValueError):  # noqa: PT011 - its text is that of the JSON reader
        items.unpack(item[: data.draw(st.integers(0, len(item) - 1))])
    with pytest.raises(ValueError, match="lengths don't agree"):
        items.unpack(item + b"x")


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\1\0\0", id="no length"),
        pytest.param(_item(b"{"), id="no JSON"),
        pytest.param(_item(b"\xff\xfe\xfd"), id="no text"),
        pytest.param(_item(b"[]"), id="a list"),
        pytest.param(_item(b"null"), id="null"),
        pytest.param(_item(b"{}", size=99), id="a header longer than the item"),
        pytest.param(_item(b'{"value_bytes": 3}', b"ab"), id="a body longer than the item"),
        pytest.param(_item(b'{"value_bytes": -1}'), id="a length below zero"),
        pytest.param(_item(b'{"value_bytes": 1.0}', b"a"), id="a length that is no int"),
        pytest.param(_item(b'{"value_bytes": true}', b"a"), id="a length that is a truth"),
        pytest.param(_item(b'{"stdout_bytes": "1"}', b"a"), id="a length that is a text"),
        pytest.param(_item(b'{"exit": null}'), id="a field that is null"),
        pytest.param(_item(b'{"exit": true}'), id="a field that is a truth"),
        pytest.param(_item(b'{"message": ["x"]}'), id="a field that is a list"),
        pytest.param(_item(b'{"exit": NaN}'), id="a field that is a float"),
        pytest.param(_item(b"[" * 100_000), id="lists in lists in lists"),
        pytest.param(_item(b'{"a":' * 100_000), id="maps in maps in maps"),
        pytest.param(_item(b'{"exit":' + b"9" * 10_000 + b"}"), id="a number without end"),
    ],
)
def test_bytes_that_are_no_item_are_a_value_error(item: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its text is that of the JSON reader
        items.unpack(item)


@given(
    st.binary(max_size=60)
    | st.builds(_item, st.binary(max_size=30), BODIES)
    | st.builds(_item, st.text('{}[]":,0123456789valuestdo_byt\\', max_size=40).map(str.encode))
)
def test_any_bytes_are_an_item_or_a_value_error(data: bytes) -> None:
    try:
        header, *bodies = items.unpack(data)
    except ValueError:
        return
    assert items.unpack(items.pack(header, *bodies)) == (header, *bodies)
    assert all(type(value) in (int, str) for value in header.values())

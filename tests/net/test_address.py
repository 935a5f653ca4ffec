"""Addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model.errors import UsageError
from p2psched.net.address import DEFAULT_PORT, Address, is_loopback, parse


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("name.example", "name.example", DEFAULT_PORT),
        ("[::1]:9", "::1", 9),
        ("[::1]", "::1", DEFAULT_PORT),
        ("fe80::1", "fe80::1", DEFAULT_PORT),
        (" localhost:0 ", "localhost", 0),
    ],
)
def test_an_address_is_read_and_written_back(text: str, host: str, port: int) -> None:
    address = parse(text)
    assert (address.host, address.port) == (host, port)
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":7420", "a:", "a:b", "a:-1", "a:65536", "a:\u0663", "[::1", "[::1]x", "[]:1"),
        *("[a:b]:1", "a b:1", "http://a:1", "a..b:1", "x" * 64 + ":1", "y" * 300, "user@a:1"),
        *("a\x00:1", "1:2:3"),
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="7420"):
        parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = parse(text)
    except UsageError:
        return
    assert parse(str(address)) == address


def test_loopback_means_this_machine_alone() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.8.9.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")
    assert not is_loopback("192.0.2.1")


def test_a_host_that_does_not_resolve_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.invalid"):
        is_loopback("nowhere.invalid")


def test_a_port_out_of_range_cannot_exist() -> None:
    with pytest.raises(UsageError):
        Address("a", 70_000)

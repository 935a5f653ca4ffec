"""Payloads that are cut into entries come out whole, on every peer, or not at all."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.parts import Opener, cut
from p2psched.model.commands import Cancel, Envelope
from p2psched.model.ids import JobId, PeerId
from p2psched.model.raft import Entry, EntryKind


def envelopes(count: int) -> tuple[Envelope, ...]:
    return tuple(Envelope(PeerId("b" * 32), n, Cancel(JobId("a" * 32))) for n in range(count))


def entries(count: int, part_bytes: int, *, first: int = 1, term: int = 1) -> list[Entry]:
    parts = cut(msgspec.msgpack.encode(envelopes(count)), part_bytes)
    return [
        Entry(index, term, kind, 10 * index, 0, data)
        for index, (kind, data) in enumerate(parts, start=first)
    ]


@given(count=st.integers(1, 40), part_bytes=st.integers(1, 5000))
def test_the_last_part_brings_all_of_it(count: int, part_bytes: int) -> None:
    log, opener = entries(count, part_bytes), Opener()
    opened = [opener.open(entry) for entry in log]
    assert [batch.index for batch in opened] == [entry.index for entry in log]
    assert [batch.stamp_ms for batch in opened] == [entry.stamp_ms for entry in log]
    assert all(batch.envelopes == () for batch in opened[:-1])
    assert opened[-1].envelopes == envelopes(count)
    assert max(len(entry.payload) for entry in log) <= part_bytes + 1


@given(left=st.integers(1, 5))
def test_parts_that_a_failed_leader_left_are_void(left: int) -> None:
    """The next one begins with an entry of its own."""
    begun = entries(20, 100)[:left]
    own = Entry(left + 1, 2, EntryKind.NOOP, 0, 0, b"")
    whole = entries(3, 50, first=left + 2, term=2)
    opener = Opener()
    opened = [opener.open(entry) for entry in (*begun, own, *whole)]
    assert [e for batch in opened for e in batch.envelopes] == list(envelopes(3))


def test_what_is_short_is_not_cut() -> None:
    assert list(cut(b"abc", 3)) == [(EntryKind.COMMANDS, b"abc")]

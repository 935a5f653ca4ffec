"""`client.kv` against a dictionary: pages, retries, watches that go on, values."""

from __future__ import annotations

from typing import TypeVar

import pytest

from p2psched.client.acting import Acting
from p2psched.client.keys import Entry, Keys, get, put, value_is, version_is
from p2psched.model import key_actions, key_messages
from p2psched.model.act_messages import DidSo, Do
from p2psched.model.errors import Conflict, TooOld, UsageError
from p2psched.model.event_messages import Place
from p2psched.model.key_actions import KeyConflict, KeyPut, PutKey, Transact, Transacted
from p2psched.model.key_messages import KeyChange, KeyChanges, KeyRange, RangeKeys, WatchKeys
from p2psched.model.lease_actions import Enrol, Enrolled
from p2psched.model.messages import CallBody
from p2psched.net.calls import Heard
from tests.client.loops import in_loop

T = TypeVar("T")


class Cluster:
    """Answers by the script of a test, and keeps what it was asked."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[object] = []
        self.acting = Acting(self)

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        assert spent_s >= 0
        answer: object
        if isinstance(body, Do) and isinstance(body.action, Enrol):
            answer = DidSo(Enrolled(1))
        elif isinstance(body, Do):
            self.asked.append(body.action)
            answer = DidSo(self.answers.pop(0))  # type: ignore[arg-type]  # of the test
        else:
            self.asked.append(body)
            answer = self.answers.pop(0)
        assert isinstance(answer, expect)
        return answer

    def call_nowait(self, body: CallBody, heard: Heard) -> bool:
        return False

    def has_sent(self, ref: object) -> bool:
        return False


def entry(key: str, packed: bytes, version: int) -> key_actions.Entry:
    return key_actions.Entry(key, packed, version, 1)


@in_loop
async def test_a_lost_race_tells_the_entry_that_is_there_with_its_value() -> None:
    cluster = Cluster(KeyConflict(entry("k", b"\x07", 9)), KeyConflict(None))
    kv = Keys(cluster)
    with pytest.raises(Conflict, match="has version 9, and version 3 was expected") as conflict:
        await kv.cas("k", 3, "mine")
    assert conflict.value.current == Entry("k", 7, 9, 1)
    with pytest.raises(Conflict, match="is not there") as conflict:
        await kv.cas("k", 3, "mine")
    assert conflict.value.current is None
    assert cluster.asked[0] == PutKey("k", b"\xa4mine", None, 3)


@in_loop
async def test_an_update_goes_on_from_what_it_was_told_without_reading_again() -> None:
    found = key_messages.KeyGot(entry("k", b"\x01", 5))
    cluster = Cluster(found, KeyConflict(entry("k", b"\x05", 6)), KeyConflict(None), KeyPut(8))
    seen: list[object] = []

    async def change(value: object) -> object:
        seen.append(value)
        return len(seen)

    assert await Keys(cluster).update("k", change) == Entry("k", 3, 8, 8)
    assert seen == [1, 5, None]
    assert [asked.expected for asked in cluster.asked if isinstance(asked, PutKey)] == [5, 6, 0]


@in_loop
async def test_an_update_gives_up_after_its_tries() -> None:
    lost = [KeyConflict(entry("k", b"\x05", 6))] * 3
    cluster = Cluster(key_messages.KeyGot(None), *lost)
    with pytest.raises(Conflict):
        await Keys(cluster).update("k", lambda value: value, tries=2)
    assert len(cluster.answers) == 1


@in_loop
async def test_a_range_of_several_pages_has_the_version_of_the_first() -> None:
    pages = (
        KeyRange((entry("a", b"\x01", 3), entry("b", b"\x02", 4)), 10, more=True),
        KeyRange((entry("c", b"\x03", 12),), 12, more=False),
    )
    cluster = Cluster(*pages)
    found = await Keys(cluster).range("")
    assert ([e.value for e in found], found.version, found.more) == ([1, 2, 3], 10, False)
    assert [body.after for body in cluster.asked if isinstance(body, RangeKeys)] == [None, "b"]
    cluster = Cluster(pages[0])
    found = await Keys(cluster).range("", limit=2)
    assert (len(found), found.more) == (2, True)


@in_loop
async def test_a_watch_goes_on_at_the_place_behind_what_it_has_seen() -> None:
    cluster = Cluster(
        KeyChanges((), Place(7)),
        KeyChanges((KeyChange("a", b"\x01", 5, 5),), Place(8, 1)),
        KeyChanges((), Place(20)),
        KeyChanges((KeyChange("a", None, 30, 5, "lease"),), Place(21)),
        KeyChanges((), Place(21), oldest=40),
    )
    seen: list[tuple[object, ...]] = []

    async def watch() -> None:
        async for change in Keys(cluster).watch("a"):
            seen.append((change.value, change.version, change.deleted, change.lease))  # noqa: PERF401 (kept when it raises)

    with pytest.raises(TooOld, match="behind version 30") as gone:
        await watch()
    assert seen == [(1, 5, False, None), (None, 30, True, "lease")]
    assert gone.value.oldest == 40
    starts = [body.start for body in cluster.asked if isinstance(body, WatchKeys)]
    assert starts == [None, Place(7), Place(8, 1), Place(20), Place(21)]


@in_loop
async def test_a_transaction_tells_what_each_operation_did() -> None:
    results = (KeyPut(9), key_actions.KeyDeleted(was_there=False), key_actions.KeyRead(None))
    cluster = Cluster(Transacted(held=False, version=9, results=results))
    done = await Keys(cluster).txn(
        [version_is("a", 0), value_is("b", 1)], [put("a", 2)], [get("b")]
    )
    assert not done
    assert done.results == [9, False, None]
    (asked,) = cluster.asked
    assert isinstance(asked, Transact)
    assert asked.then == (PutKey("a", b"\x02"),)


@in_loop
async def test_what_is_nothing_for_messagepack_is_not_sent() -> None:
    kv = Keys(Cluster())
    with pytest.raises(UsageError, match="nothing for MessagePack"):
        await kv.put("k", object())
    with pytest.raises(UsageError, match="nothing for MessagePack"):
        await kv.put("k", 2**70)
    with pytest.raises(UsageError, match="1 to 1024 bytes"):
        await kv.get("")

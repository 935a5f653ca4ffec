"""Keys of the ledger for a program: `client.kv`.

Values are what MessagePack can hold (None, bool, numbers, str, bytes, lists, dicts), up to 256 KiB;
a tuple comes back as a list. Every change has a version, which only rises, over all keys. What is
read is as of now, and each change is done once, however often its answer is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from inspect import isawaitable
from typing import Final, Protocol

import msgspec

from p2psched.client.acting import Acting
from p2psched.client.leases import Lease
from p2psched.client.session import Asker
from p2psched.model import key_actions
from p2psched.model.errors import Conflict, TooOld, UsageError
from p2psched.model.event_messages import Place
from p2psched.model.key_actions import (
    Compare,
    DeleteKey,
    GetInside,
    Holds,
    KeyConflict,
    KeyDeleted,
    KeyPut,
    KeyRead,
    Op,
    PutKey,
    Transact,
    Transacted,
    ValueIs,
    VersionIs,
    key_fault,
)
from p2psched.model.key_messages import (
    RANGE_MAX,
    GetKey,
    KeyChange,
    KeyChanges,
    KeyGot,
    KeyRange,
    RangeKeys,
    WatchKeys,
)

UPDATES_MAX: Final = 64  # tries of `update`
PAUSE_S_MAX: Final = 0.2  # between two of them
WATCH_MS: Final = 10_000  # in one call: a peer that is cut off says so then

OnLease = Lease | str | None


class Entry(msgspec.Struct, frozen=True):
    """A key that is there."""

    key: str
    value: object
    version: int  # of its last change
    created: int  # version since which it is there
    lease: str | None = None  # with which it goes


class Change(msgspec.Struct, frozen=True):
    """A key was put, or is gone (`value` is None then, and `deleted` True)."""

    key: str
    value: object
    version: int
    deleted: bool = False
    lease: str | None = None


class Page(msgspec.Struct, frozen=True):
    """Some changes, and the place behind them."""

    changes: list[Change]
    following: Place


class Range(msgspec.Struct, frozen=True):
    """Entries in the order of their keys. `version`: of the moment at which they were read; if that
    took several calls, of the first: `watch` from it and nothing is missed."""

    entries: list[Entry]
    version: int
    more: bool = False  # there are further ones, behind the last

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Transaction(msgspec.Struct, frozen=True):
    """What a transaction did. `results`: of each operation; of a put its version, of a delete
    whether the key was there, of a get the entry or None."""

    held: bool  # all comparisons
    version: int
    results: list[int | bool | Entry | None]

    def __bool__(self) -> bool:
        return self.held


def put(key: str, value: object, *, lease: OnLease = None) -> Op:
    """For `txn`."""
    return PutKey(key, _packed(key, value), _name_of(lease))


def delete(key: str) -> Op:
    """For `txn`."""
    return DeleteKey(key)


def get(key: str) -> Op:
    """For `txn`: what the key is there, after the operations before it."""
    return GetInside(key)


def version_is(key: str, version: int) -> Compare:
    """For `txn`. 0: it is not there."""
    return VersionIs(key, version)


def value_is(key: str, value: object) -> Compare:
    """For `txn`: packed, the value has the same bytes."""
    return ValueIs(key, _packed(key, value))


def holds(lock: str, token: int) -> Compare:
    """For `txn`: the lock is held under this token, as `lock.token` tells it."""
    return Holds(lock, token)


class Calls(Asker, Protocol):
    """What it needs of a session."""

    @property
    def acting(self) -> Acting: ...


class Keys:
    """All methods raise UsageError for what can't be, Refused at a limit of the cluster (100,000
    keys, 64 MiB together), Unavailable without a majority; see `Acting` for changes."""

    def __init__(self, session: Calls) -> None:
        self._session = session

    async def get(self, key: str) -> Entry | None:
        """None if it is not there."""
        _check_key(key)
        found = (await self._session.call(GetKey(key), KeyGot)).entry
        return _entry(found) if found is not None else None

    async def put(self, key: str, value: object, *, lease: OnLease = None) -> int:
        """Whatever was there. Its version. With a lease the key goes when that ends."""
        action = PutKey(key, _packed(key, value), _name_of(lease))
        return (await self._session.acting.act(action, KeyPut)).version

    async def delete(self, key: str, *, version: int | None = None) -> bool:
        """False if it was not there. With a version only if it has that one, else Conflict."""
        action = DeleteKey(key, version)
        answer = await self._session.acting.act(action, object)
        if isinstance(answer, KeyConflict):
            raise _conflict(key, version, answer)
        assert isinstance(answer, KeyDeleted)
        return answer.was_there

    async def cas(
        self, key: str, version: int | None, value: object, *, lease: OnLease = None
    ) -> int:
        """Put it if the key has this version; 0 or None: if it is not there. Its new version.
        Raises Conflict with the entry that is there (`current`)."""
        action = PutKey(key, _packed(key, value), _name_of(lease), version or 0)
        answer = await self._session.acting.act(action, object)
        if isinstance(answer, KeyConflict):
            raise _conflict(key, version, answer)
        assert isinstance(answer, KeyPut)
        return answer.version

    async def update(
        self,
        key: str,
        change: Callable[[object], object | Awaitable[object]],
        *,
        tries: int = UPDATES_MAX,
        lease: OnLease = None,
    ) -> Entry:
        """Replace a value by what `change` makes of it (of None if it is not there), again and
        again until nobody has changed it meanwhile. Raises Conflict after so many tries."""
        current = await self.get(key)
        for attempt in range(tries):
            made = change(current.value if current is not None else None)
            value = await made if isawaitable(made) else made
            known = current.version if current is not None else 0
            try:
                version = await self.cas(key, known, value, lease=lease)
            except Conflict as conflict:
                if attempt + 1 == tries:
                    raise
                current = conflict.current if isinstance(conflict.current, Entry) else None
                # Those who meet once would meet again.
                await asyncio.sleep(random.uniform(0, min(PAUSE_S_MAX, 0.002 * 2**attempt)))
            else:
                created = current.created if current is not None else version
                return Entry(key, value, version, created, _name_of(lease))
        raise UsageError("an update tries once at least")

    async def range(
        self, prefix: str = "", *, limit: int | None = None, after: str | None = None
    ) -> Range:
        """Keys that begin so, in their order, behind `after`."""
        entries: list[Entry] = []
        version: int | None = None
        while True:
            most = RANGE_MAX if limit is None else min(RANGE_MAX, limit - len(entries))
            page = await self._session.call(RangeKeys(prefix, after, most), KeyRange)
            entries += map(_entry, page.entries)
            version = page.version if version is None else version
            if not page.more or (limit is not None and len(entries) >= limit):
                return Range(entries, version, page.more)
            after = entries[-1].key

    async def watch(
        self, prefix: str = "", *, from_version: int | None = None
    ) -> AsyncIterator[Change]:
        """Changes of keys that begin so, each once, in order, for ever, whichever peer is lost:
        those behind a version (of a `range`, of the last change that was seen), or those from now
        on. Raises TooOld once they are gone from all peers; what is read slowly waits there."""
        async for page in self.pages(prefix, from_version=from_version):
            for change in page.changes:
                yield change

    async def pages(
        self, prefix: str = "", *, from_version: int | None = None, start: Place | None = None
    ) -> AsyncIterator[Page]:
        """As `watch`, and after each page the place from which another reader could go on."""
        if start is None and from_version is None:
            start = (await self._session.call(WatchKeys(prefix), KeyChanges)).following
            yield Page([], start)
        seen = from_version
        while True:
            asked = WatchKeys(prefix, start, from_version, wait_ms=WATCH_MS)
            page = await self._session.call(asked, KeyChanges)
            if page.oldest is not None:
                raise TooOld(
                    f"changes behind version {seen or 0} of keys are gone from all peers, which "
                    f"have those behind {page.oldest}: read a range, and watch from its version",
                    oldest=page.oldest,
                )
            seen = page.changes[-1].version if page.changes else seen
            start = page.following
            yield Page([_change(change) for change in page.changes], start)

    async def txn(
        self,
        compare: Iterable[Compare] = (),
        then: Iterable[Op] = (),
        otherwise: Iterable[Op] = (),
    ) -> Transaction:
        """If all of `compare` holds do all of `then`, else all of `otherwise`, at one moment and
        whole, or raise and do nothing. Make their parts with `version_is`, `value_is`, `holds`,
        `put`, `delete` and `get` of this module."""
        action = Transact(tuple(compare), tuple(then), tuple(otherwise))
        done = await self._session.acting.act(action, Transacted)
        return Transaction(done.held, done.version, [_result(result) for result in done.results])


def _result(result: KeyPut | KeyDeleted | KeyRead) -> int | bool | Entry | None:
    match result:
        case KeyPut(version=version):
            return version
        case KeyDeleted(was_there=was_there):
            return was_there
        case KeyRead(entry=entry):
            return _entry(entry) if entry is not None else None


def _conflict(key: str, version: int | None, answer: KeyConflict) -> Conflict:
    current = _entry(answer.current) if answer.current is not None else None
    there = f"has version {current.version}" if current is not None else "is not there"
    asked = f"version {version}" if version else "that it is not there"
    return Conflict(f"key {key!r} {there}, and {asked} was expected", current=current)


def _change(change: KeyChange) -> Change:
    value = _value(change.value) if change.value is not None else None
    return Change(change.key, value, change.version, change.value is None, change.lease)


def _entry(entry: key_actions.Entry) -> Entry:
    value = _value(entry.value)
    return Entry(entry.key, value, entry.version, entry.created, entry.lease)


def _packed(key: str, value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (TypeError, OverflowError, ValueError) as error:
        raise UsageError(f"the value of key {key!r} is nothing for MessagePack: {error}") from error


def _value(packed: bytes) -> object:
    value: object = msgspec.msgpack.decode(packed)
    return value


def _check_key(key: str) -> None:
    fault = key_fault(key)
    if fault:
        raise UsageError(fault)


def _name_of(lease: OnLease) -> str | None:
    return lease.id if isinstance(lease, Lease) else lease

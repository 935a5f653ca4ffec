"""Calls that look at keys, and follow their changes."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.event_messages import Place
from p2psched.model.key_actions import Entry
from p2psched.model.lease_actions import LeaseId

RANGE_MAX: Final = 1_000  # entries in one answer


class GetKey(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=91):
    key: str


class RangeKeys(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=92):
    """Keys that begin so, in their order, behind `after`."""

    prefix: str
    after: str | None = None
    limit: int = RANGE_MAX


class WatchKeys(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=93):
    """Changes of keys that begin so, of versions behind `version`, from a place on; at most
    `wait_ms` after the call if there are none yet. Without either: none, but where the next one
    will be."""

    prefix: str
    start: Place | None = None
    version: int | None = None
    limit: int = RANGE_MAX
    wait_ms: int = 0


KeyLook = GetKey | RangeKeys


class KeyGot(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=91):
    entry: Entry | None


class KeyRange(msgspec.Struct, frozen=True, array_like=True, tag=92):
    """As of one moment."""

    entries: tuple[Entry, ...]
    version: int  # all changes up to it are in here, and none behind it
    more: bool  # there are further ones


class KeyChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    key: str
    value: bytes | None  # None: it is gone
    version: int
    created: int
    lease: LeaseId | None = None


class KeyChanges(msgspec.Struct, frozen=True, array_like=True, tag=93):
    """`following`: where to go on; all changes that were asked for before it are here."""

    changes: tuple[KeyChange, ...]
    following: Place
    # If the place is gone: the lowest version that can be watched from. Then there are no changes.
    oldest: int | None = None


KeyLookAnswer = KeyGot | KeyRange

"""Looks at keys, and their changes, as calls. A part of the API, see `peer.api`.

Changes are the ledger's events, with values: from memory, from the log on this disk, or from
another peer's. A reader who is too slow finds its place gone, and is told from where it can go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from p2psched.core import keys
from p2psched.core.machine import Machine
from p2psched.model.event_messages import EventFilter, EventRecord, FetchEvents, Place
from p2psched.model.key_actions import Entry
from p2psched.model.key_messages import (
    RANGE_MAX,
    GetKey,
    KeyChange,
    KeyChanges,
    KeyGot,
    KeyLook,
    KeyLookAnswer,
    KeyRange,
    RangeKeys,
    WatchKeys,
)
from p2psched.model.limits import KIB
from p2psched.peer.events_api import EventsApi
from p2psched.peer.scheduler_loop import SchedulerLoop

RANGE_BYTES_MAX: Final = 512 * KIB  # of one answer, which has one entry at least


def look(machine: Machine, body: KeyLook) -> KeyLookAnswer:
    """As of what is applied here."""
    match body:
        case GetKey(key=key):
            return KeyGot(machine.keys.get(key))
        case RangeKeys(prefix=prefix, after=after, limit=limit):
            found: list[Entry] = []
            size = 0
            entries = keys.entries(machine, prefix, after)
            for entry in islice(entries, max(1, min(limit, RANGE_MAX))):
                size += entry.size
                if found and size > RANGE_BYTES_MAX:
                    return KeyRange(tuple(found), machine.command_index, more=True)
                found.append(entry)
            return KeyRange(
                tuple(found), machine.command_index, more=next(entries, None) is not None
            )


class Watching:
    def __init__(
        self,
        scheduling: SchedulerLoop,
        events: EventsApi,
        linearize: Callable[[], Awaitable[None]],
    ) -> None:
        self._scheduling = scheduling
        self._events = events
        self._linearize = linearize

    async def answer(self, body: WatchKeys) -> KeyChanges:
        """Raises a P2PSchedError for the caller."""
        feed, version = self._scheduling.events, body.version
        start = body.start
        if start is None:
            if version is None:
                await self._linearize()
                return KeyChanges((), Place(feed.last + 1))
            start = self._place_behind(version)
        wanted = EventFilter(kinds=("key.",), prefix=body.prefix, values=True)
        page = await self._events.read(FetchEvents(start, wanted, body.limit, body.wait_ms))
        if page.oldest is not None:
            machine = self._scheduling.scheduler.machine
            return KeyChanges((), start, keys.version_at(machine, page.oldest.index))
        changes = map(_change_of, page.events)
        newer = tuple(c for c in changes if version is None or c.version > version)
        return KeyChanges(newer, page.following)

    def _place_behind(self, version: int) -> Place:
        """At or before the first change behind a version."""
        feed, machine = self._scheduling.events, self._scheduling.scheduler.machine
        index = None
        if version < machine.command_index:
            index = feed.entry_behind(version) or keys.entry_of_version(machine, version)
        return Place(feed.last + 1 if index is None else index)


def _change_of(record: EventRecord) -> KeyChange:
    key, created, lease = record.data["key"], record.data["created"], record.data["lease"]
    assert isinstance(key, str)
    assert isinstance(created, int)
    assert isinstance(lease, str)
    return KeyChange(key, record.value, record.command, created, lease or None)

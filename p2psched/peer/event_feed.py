"""The newest events of the ledger, in memory, for those who follow them on this peer.

What is kept is bounded in bytes and entries, whatever readers do: one that is too slow finds its
place gone from here, and gets it from the log (`peer.replay`). To be followed costs an entry next
to nothing: its public events are made when the first reader comes by.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Final

import msgspec

from p2psched.core.event_log import Happened, records_of
from p2psched.model.event_messages import EventFilter, EventPage, EventRecord, Place
from p2psched.model.limits import KIB, MIB

FEED_BYTES_MAX: Final = 1 * MIB  # of the entries
FEED_ENTRIES_MAX: Final = 4_096
PAGE_BYTES_MAX: Final = 256 * KIB
LOOKS_MAX: Final = 2_000  # at events in one turn: a page may say only how far that went

_encode: Final = msgspec.msgpack.Encoder().encode


class PageMaker:
    """Collects what fits a page."""

    def __init__(self, start: Place, wanted: EventFilter, limit: int) -> None:
        self._wanted = wanted
        self._limit = limit
        self._bytes = 0
        self.following = start
        self.events: list[EventRecord] = []
        self.looks = 0

    def take(self, records: list[EventRecord], index: int) -> bool:
        """All of entry `index`; those before the start are passed over. False if the page is full
        before the last of them."""
        for record in records:
            if record.place < self.following:
                continue
            self.looks += 1
            if self._wanted.fits(record):
                if record.value is not None and not self._wanted.values:
                    record = msgspec.structs.replace(record, value=None)
                size = len(_encode(record))
                is_full = self.events and self._bytes + size > PAGE_BYTES_MAX
                if is_full or len(self.events) >= self._limit:
                    return False
                self._bytes += size
                self.events.append(record)
            self.following = record.place.behind
        self.following = max(self.following, Place(index + 1))
        return True

    def page(self) -> EventPage:
        return EventPage(tuple(self.events), self.following)


class _Slot:
    __slots__ = ("happened", "records")

    def __init__(self, happened: Happened) -> None:
        self.happened = happened
        self.records: list[EventRecord] | None = None


class EventFeed:
    """Belongs to the loop that applies."""

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque()
        self._bytes = 0
        self.last = 0  # the newest entry that was applied
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def first(self) -> int:
        """The oldest entry that is here; the next one if there is none."""
        return self.last - len(self._slots) + 1

    def note(self, happened: Happened) -> None:
        """The next entry was applied."""
        assert happened.batch.index == self.last + 1
        self.last += 1
        self._slots.append(_Slot(happened))
        self._bytes += happened.batch.size
        while self._bytes > FEED_BYTES_MAX or len(self._slots) > FEED_ENTRIES_MAX:
            self._bytes -= self._slots.popleft().happened.batch.size
        self._wake()

    def restart(self, index: int) -> None:
        """The ledger goes on behind this entry, and nobody here knows what led there."""
        self._slots.clear()
        self._bytes = 0
        self.last = index
        self._wake()

    def _wake(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait_beyond(self, index: int) -> None:
        """Until an entry behind this one is applied."""
        while self.last <= index:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            finally:
                if not future.done() or future.cancelled():
                    self._waiting = [other for other in self._waiting if other is not future]

    def entry_behind(self, version: int) -> int | None:
        """The first entry with a command behind this one; None if it may be older than all that is
        here."""
        for number, slot in enumerate(reversed(self._slots)):
            if slot.happened.before <= version:
                return self.last - number
        return None

    def read(self, start: Place, wanted: EventFilter, limit: int) -> EventPage | None:
        """None if the place is gone from here."""
        if start.index < self.first:
            return None
        maker = PageMaker(start, wanted, limit)
        for slot in islice(self._slots, start.index - self.first, None):
            if slot.records is None:
                slot.records = records_of(slot.happened)
            if not maker.take(slot.records, slot.happened.batch.index):
                break
            if maker.looks >= LOOKS_MAX:
                break
        return maker.page()

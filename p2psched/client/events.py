"""Events of the ledger for a program: one after another, from a place on, whichever peer answers.

Places are equal on every peer, so a reader whose peer is gone goes on at another one where it was.
What is older than any peer keeps is refused and said, never passed over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, TypeVar

import msgspec

from p2psched.client.session import Asker
from p2psched.model.errors import Refused
from p2psched.model.event_messages import (
    EventFilter,
    EventPage,
    EventRecord,
    FetchEvents,
    Place,
    ReadPast,
)
from p2psched.model.messages import FindJob, ListJobs, ListPeers, ShowJob

T = TypeVar("T")
PastBody = FindJob | ShowJob | ListJobs | ListPeers

WAIT_MS: Final = 10_000  # in one call: a peer that is cut off says so then
BEGINNING: Final = Place(1)


async def pages(
    session: Asker,
    *,
    start: Place | None = None,
    wanted: EventFilter | None = None,
    upto: Place | None = None,
) -> AsyncIterator[EventPage]:
    """Pages of what fits, for ever, or up to a place that is there already. Without `start` only
    what happens from now on. A page may be without events. Raises Refused if `start` is older than
    what peers keep."""
    wanted = wanted or EventFilter()
    if start is None:
        start = (await session.call(FetchEvents(None), EventPage)).following
        yield EventPage((), start)
    while upto is None or start < upto:
        page = await session.call(FetchEvents(start, wanted, wait_ms=WAIT_MS), EventPage)
        if page.oldest is not None:
            raise Refused(
                f"events before {page.oldest} are gone, and {start} was asked for: begin at "
                f"{page.oldest}. Peers keep what their newest two snapshots and the log behind "
                "them lead back to"
            )
        start = page.following
        if upto is not None and page.events and page.events[-1].place >= upto:
            page = EventPage(tuple(e for e in page.events if e.place < upto), upto)
        yield page


async def now(session: Asker) -> Place:
    """The place of whatever happens next. All that was acknowledged is before it."""
    return (await session.call(FetchEvents(None), EventPage)).following


async def oldest(session: Asker) -> Place:
    """Of all events that can be had of the peers within reach."""
    page = await session.call(FetchEvents(BEGINNING, limit=1), EventPage)
    return page.oldest or BEGINNING


async def past(session: Asker, index: int, body: PastBody, expect: type[T]) -> T:
    """What a read would have been answered once entry `index` was applied. Raises Refused if that
    is too long ago."""
    asked = ReadPast(index, msgspec.msgpack.encode(body))
    return await session.call(asked, expect)


async def each(
    session: Asker,
    *,
    start: Place | None = None,
    wanted: EventFilter | None = None,
) -> AsyncIterator[EventRecord]:
    """Event by event, for ever: see `pages`."""
    async for page in pages(session, start=start, wanted=wanted):
        for record in page.events:
            yield record

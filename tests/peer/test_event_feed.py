"""The newest events in memory: pages from any place make up the whole, and nothing grows."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core.event_log import Happened, records_of
from p2psched.core.machine import Machine
from p2psched.core.replica import fold
from p2psched.model.commands import Command, Envelope
from p2psched.model.event_messages import EventFilter, EventRecord, Place
from p2psched.model.execution import Committed
from p2psched.peer import event_feed
from p2psched.peer.event_feed import FEED_BYTES_MAX, EventFeed
from tests.core.test_machine import P, up
from tests.core.test_machine_sequences import COMMANDS, SETUP

ALL = EventFilter()


def happened(machine: Machine, *commands: Command, size: int = 100) -> Happened:
    index = machine.applied_index + 1
    envelopes = tuple(Envelope(P, 100 * index + i, command) for i, command in enumerate(commands))
    return fold(machine, Committed(index, index, 0, envelopes, None, size))


def ups(feed: EventFeed, machine: Machine, count: int, size: int = 100) -> None:
    for _ in range(count):
        feed.note(happened(machine, up(P, machine.applied_index + 1), size=size))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(COMMANDS, max_size=5), min_size=1, max_size=20), st.integers(0, 2**32))
def test_pages_from_any_place_on_are_the_rest_of_all(
    entries: list[list[Command]], seed: int
) -> None:
    rng = random.Random(seed)
    feed, machine = EventFeed(), Machine()
    whole: list[EventRecord] = []
    for commands in [list(SETUP), *entries]:
        one = happened(machine, *commands)
        whole += records_of(one)
        feed.note(one)
    kinds = sorted({record.kind for record in whole})
    wanted = EventFilter(kinds=tuple(rng.sample(kinds, rng.randint(0, len(kinds)))))
    first = rng.choice([Place(1), *(record.place.behind for record in whole)])
    start, found = first, list[EventRecord]()
    while start < Place(machine.applied_index + 1):
        page = feed.read(start, wanted, rng.randint(1, 4))
        assert page is not None
        assert page.following > start
        found += page.events
        start = page.following
    assert found == [r for r in whole if r.place >= first and wanted.fits(r)]


def test_what_is_kept_is_bounded_and_a_slow_reader_is_told_that_its_place_is_gone() -> None:
    feed, machine = EventFeed(), Machine()
    ups(feed, machine, 40, size=FEED_BYTES_MAX // 10)
    assert feed.first == 31
    assert feed.read(Place(30), ALL, 100) is None
    page = feed.read(Place(31), ALL, 100)
    assert page is not None
    assert [record.index for record in page.events] == list(range(31, 41))


def test_a_page_ends_after_so_many_looks_and_says_how_far_it_went() -> None:
    feed, machine = EventFeed(), Machine()
    ups(feed, machine, event_feed.LOOKS_MAX + 10)
    page = feed.read(Place(1), EventFilter(kinds=("job.ended",)), 100)
    assert page is not None
    assert not page.events
    assert page.following == Place(event_feed.LOOKS_MAX + 1)


def test_a_state_that_came_whole_has_no_past_here() -> None:
    feed, machine = EventFeed(), Machine()
    ups(feed, machine, 3)
    feed.restart(70)
    assert feed.read(Place(3), ALL, 9) is None
    page = feed.read(Place(71), ALL, 9)
    assert page is not None
    assert page.following == Place(71)


def test_whoever_waits_hears_of_the_next_entry_and_leaves_nothing_behind() -> None:
    async def story() -> None:
        feed, machine = EventFeed(), Machine()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(feed.wait_beyond(1))
            given_up = group.create_task(feed.wait_beyond(1))
            await asyncio.sleep(0)
            given_up.cancel()
            ups(feed, machine, 1)
            await asyncio.sleep(0)
            assert not waiting.done()
            ups(feed, machine, 1)
        assert waiting.done()
        assert feed._waiting == []

    asyncio.run(story())

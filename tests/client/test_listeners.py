"""Listeners: each event at least once, in order, and a cursor that moves on only behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast

import pytest

from p2psched.client.client import Client
from p2psched.client.listeners import FileCursor, listen, on
from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.model.event_messages import EventPage, EventRecord, FetchEvents, Place
from p2psched.model.messages import CallBody

T = TypeVar("T")


class FakeCluster:
    """Tells events; with a page of two at a time, and a dead peer now and then."""

    def __init__(self, count: int) -> None:
        self.events = [EventRecord(i, 0, i, 0, 0, "job.ended") for i in range(1, count + 1)]
        self.cluster = "c"
        self.oldest: Place | None = None
        self.calls = 0
        self.fails_every = 0
        self.is_idle = asyncio.Event()

    @property
    def client(self) -> Client:
        return cast("Client", SimpleNamespace(session=self, status=self.status))

    async def status(self) -> SimpleNamespace:
        return SimpleNamespace(cluster=self.cluster)

    async def call(self, body: CallBody, expect: type[T]) -> T:
        assert isinstance(body, FetchEvents)
        self.calls += 1
        if self.fails_every and self.calls % self.fails_every == 0:
            raise Unavailable("nobody is there")
        return cast("T", await self._page(body))

    async def _page(self, body: FetchEvents) -> EventPage:
        newest = Place(len(self.events) + 1)
        if body.start is None:
            return EventPage((), newest)
        if self.oldest is not None and body.start < self.oldest:
            return EventPage((), body.start, oldest=self.oldest)
        found = [event for event in self.events if event.place >= body.start]
        if not found:
            self.is_idle.set()
            await asyncio.get_running_loop().create_future()
        fitting = tuple(event for event in found[:2] if body.wanted.fits(event))
        return EventPage(fitting, found[:2][-1].place.behind)


def until_idle(
    cluster: Callable[[], FakeCluster], run: Callable[[Client], Awaitable[None]]
) -> None:
    """Run it until it has got all that there is."""

    async def story() -> None:
        made = cluster()
        task = asyncio.ensure_future(run(made.client))
        idle = asyncio.ensure_future(made.is_idle.wait())
        await asyncio.wait({task, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        if task.done():
            task.result()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())


def test_each_event_comes_once_and_a_new_start_goes_on_behind_the_last(tmp_path: Path) -> None:
    got: list[int] = []

    @on("job.ended", cursor=tmp_path / "cursor", start="beginning")
    async def tell(event: EventRecord) -> None:
        got.append(event.index)

    until_idle(lambda: FakeCluster(5), tell.run)
    assert got == [1, 2, 3, 4, 5]
    assert (tmp_path / "cursor").read_text() == "5:1@c\n"
    until_idle(lambda: FakeCluster(8), tell.run)
    assert got == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_event_that_failed_comes_again_and_none_before_it(tmp_path: Path) -> None:
    got: list[int] = []
    fails = [4]

    @on(cursor=str(tmp_path / "cursor"), start="beginning")
    def tell(event: EventRecord) -> None:
        got.append(event.index)
        if event.index in fails:
            fails.clear()
            raise RuntimeError("not now")

    with pytest.raises(RuntimeError, match="not now"):
        until_idle(lambda: FakeCluster(6), tell.run)
    until_idle(lambda: FakeCluster(6), tell.run)
    assert got == [1, 2, 3, 4, 4, 5, 6]


def test_peers_that_die_cost_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("p2psched.client.listeners.RETRY_S", 0)
    got: list[int] = []

    @on(start="beginning")
    async def tell(event: EventRecord) -> None:
        got.append(event.index)

    def cluster() -> FakeCluster:
        made = FakeCluster(20)
        made.fails_every = 3
        return made

    until_idle(cluster, tell.run)
    assert got == list(range(1, 21))


def test_a_first_start_begins_now_and_remembers_where_that_was(tmp_path: Path) -> None:
    got: list[int] = []

    @on(cursor=tmp_path / "cursor")
    async def tell(event: EventRecord) -> None:
        got.append(event.index)

    until_idle(lambda: FakeCluster(3), tell.run)
    until_idle(lambda: FakeCluster(4), tell.run)  # what came while nobody listened
    assert got == [4]


def test_events_that_nobody_wants_move_the_cursor_too(tmp_path: Path) -> None:
    @on("peer.", cursor=tmp_path / "cursor", start="beginning")
    async def tell(event: EventRecord) -> None:
        raise AssertionError(event)

    until_idle(lambda: FakeCluster(6), tell.run)
    assert FileCursor(tmp_path / "cursor").load() == "6:1@c"


def test_a_cursor_of_elsewhere_or_of_long_ago_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cursor"

    @on(cursor=path)
    async def tell(event: EventRecord) -> None:
        raise AssertionError(event)

    def old() -> FakeCluster:
        made = FakeCluster(9)
        made.oldest = Place(7)
        return made

    path.write_text("3:0@other\n")
    with pytest.raises(Refused, match="of cluster other"):
        until_idle(old, tell.run)
    path.write_text("3:0@c\n")
    with pytest.raises(Refused, match="begin at 7:0"):
        until_idle(old, tell.run)
    path.write_text("rubbish")
    with pytest.raises(UsageError, match="can't be read"):
        until_idle(old, tell.run)


def test_listeners_run_beside_each_other() -> None:
    got: list[str] = []

    @on(start="beginning")
    async def one(event: EventRecord) -> None:
        got.append(f"one {event.index}")
        await asyncio.sleep(0)

    @on("job.", start="beginning")
    def two(event: EventRecord) -> None:
        got.append(f"two {event.index}")
        if event.index == 3:
            raise RuntimeError("enough")

    async def story() -> None:
        await listen(FakeCluster(3).client, one, two)

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(story())
    assert str(raised.value.exceptions[0]) == "enough"
    assert {"one 1", "two 1", "two 2", "two 3"} <= set(got)


def test_what_can_never_be_called_is_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no event 'job\.over'"):
        on("job.over")
    with pytest.raises(UsageError, match="now or at the beginning"):
        on(start="later")
    with pytest.raises(UsageError, match="whole id"):
        on(job="1a2b")

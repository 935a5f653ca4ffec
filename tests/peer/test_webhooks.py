"""Webhooks are posted by whoever coordinates: signed, in order, again until they are taken."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from p2psched.model.commands import Acknowledged, Outcome
from p2psched.model.errors import Unavailable
from p2psched.model.event_messages import EventFilter, EventPage, EventRecord, FetchEvents, Place
from p2psched.model.webhook import AckWebhook, Webhook, fault_of
from p2psched.peer import webhooks
from p2psched.peer.http_post import Post
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.webhooks import BACKOFF_S_MAX, Webhooks, backoff_s, key_of, signature_of
from tests.peer.receiver import receiving


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "LOOK_S", 0.01)
    monkeypatch.setattr(webhooks, "GATHER_S", 0)
    monkeypatch.setattr(webhooks, "FETCH_RETRY_S", 0)
    monkeypatch.setattr(webhooks, "BACKOFF_S_MIN", 0.01)


class Peer:
    """What webhooks see of one: events, whether it coordinates; and what they told the ledger."""

    def __init__(self, url: str, count: int = 3) -> None:
        self.events = [EventRecord(i, 0, i, 0, 0, "job.ended") for i in range(1, count + 1)]
        self.machine = SimpleNamespace(webhooks={}, applied_index=count)
        self.scheduler = SimpleNamespace(machine=self.machine, coordinates=True)
        self.hook = Webhook("w", url, EventFilter(), 7, Place(1))
        self.machine.webhooks["w"] = self.hook
        self.acked: list[Place] = []
        self.oldest = Place(1)
        self.fails = 0

    async def propose(self, command: AckWebhook) -> Outcome:
        self.acked.append(command.upto)
        return Acknowledged()

    async def read(self, body: FetchEvents) -> EventPage:
        assert body.start is not None
        if self.fails:
            self.fails -= 1
            raise Unavailable("not just now")
        if body.start < self.oldest:
            return EventPage((), body.start, oldest=self.oldest)
        found = tuple(event for event in self.events if event.place >= body.start)
        if not found:
            await asyncio.get_running_loop().create_future()
        return EventPage(found[:2], found[:2][-1].place.behind)

    def webhooks(self) -> Webhooks:
        scheduling = cast("SchedulerLoop", self)
        return Webhooks(scheduling, self.read, secret=b"secret", cluster="c")


def deliver(
    peer: Peer, is_enough: Callable[[], bool], look: Callable[[Webhooks], None] = lambda _: None
) -> None:
    async def story() -> None:
        made = peer.webhooks()
        async with asyncio.timeout(30):
            task = asyncio.ensure_future(made.run())
            while not is_enough():
                look(made)
                await asyncio.sleep(0.005)
            task.cancel()
            await asyncio.wait({task})

    asyncio.run(story())


def test_events_come_signed_in_order_and_are_acked_behind_each_batch() -> None:
    with receiving() as receiver:
        peer = Peer(receiver.url)
        deliver(peer, lambda: len(peer.acked) == 2)
    assert [event["cursor"] for event in receiver.events] == ["1:0", "2:0", "3:0"]
    assert peer.acked == [Place(2, 1), Place(3, 1)]
    headers, body = receiver.taken[0]
    key = key_of(b"secret", "c", peer.hook)
    assert headers["P2PSched-Signature"] == signature_of(key, body)
    assert headers["Idempotency-Key"] == "w/7/2:0"
    said = json.loads(body)
    assert (said["version"], said["webhook"], said["cluster"], said["lost"]) == (1, "w", "c", None)


def test_a_receiver_that_fails_gets_the_same_again_until_it_takes_it() -> None:
    statuses = {1: 500, 2: 302, 3: 404}  # a redirect is none to follow
    seen: list[tuple[int, str]] = []

    def look(made: Webhooks) -> None:
        (view,) = made.views()
        seen.append((view.tries, view.error))

    with receiving(lambda number: statuses.get(number, 200)) as receiver:
        peer = Peer(receiver.url)
        deliver(peer, lambda: len(peer.acked) == 2, look)
    assert receiver.asked == 5
    assert [event["cursor"] for event in receiver.events] == ["1:0", "2:0", "3:0"]
    assert {(1, "status 500"), (2, "status 302"), (3, "status 404")} & set(seen)


def test_a_peer_that_does_not_coordinate_delivers_nothing_and_one_that_does_again_goes_on() -> None:
    with receiving() as receiver:
        peer = Peer(receiver.url)
        peer.scheduler.coordinates = False
        looks = 0

        def look(_: Webhooks) -> None:
            nonlocal looks
            looks += 1
            if looks == 20:
                assert receiver.asked == 0
                peer.machine.webhooks["w"] = Webhook("w", receiver.url, EventFilter(), 7, Place(3))
                peer.scheduler.coordinates = True

        deliver(peer, lambda: bool(peer.acked), look)
    assert [event["cursor"] for event in receiver.events] == ["3:0"]


def test_what_is_gone_is_told_as_lost_with_the_next_events() -> None:
    with receiving() as receiver:
        peer = Peer(receiver.url)
        peer.oldest = Place(3)
        peer.fails = 2
        deliver(peer, lambda: bool(peer.acked))
    (body,) = [json.loads(body) for _, body in receiver.taken]
    assert body["lost"] == {"from": "1:0", "before": "3:0"}
    assert [event["cursor"] for event in body["events"]] == ["3:0"]


def test_one_that_nobody_answers_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, receiving() as receiver:
        monkeypatch.setattr(webhooks, "POST_S", 0.1)
        peer = Peer(receiver.url)
        port = silent.getsockname()[1]
        peer.machine.webhooks["x"] = Webhook(
            "x", f"http://127.0.0.1:{port}/", EventFilter(), 8, Place(1)
        )
        errors: set[str] = set()
        deliver(
            peer,
            lambda: len(peer.acked) == 2 and len(errors) > 1,
            lambda made: errors.update(view.error for view in made.views()),
        )
    assert any("no answer within" in error for error in errors)
    assert len(receiver.events) == 3


def test_an_address_that_is_none_after_all_fails_alone() -> None:
    with receiving() as receiver:
        peer = Peer(receiver.url)
        for name, url in (("x", "http://[:::::]/"), ("y", f"http://{'h' * 80}.example/")):
            assert fault_of(name, url, EventFilter()) == ""
            peer.machine.webhooks[name] = Webhook(name, url, EventFilter(), 8, Place(1))
        failed: set[str] = set()
        deliver(
            peer,
            lambda: len(peer.acked) == 2 and failed == {"x", "y"},
            lambda made: failed.update(view.name for view in made.views() if view.tries),
        )
    assert len(receiver.events) == 3


def test_a_request_that_is_ended_lets_its_thread_go() -> None:
    async def story(post: Post) -> None:
        running = asyncio.get_running_loop().run_in_executor(None, post.run)
        await asyncio.wait({running}, timeout=0.05)
        post.end()
        await asyncio.wait({running}, timeout=8)  # less than it would wait by itself
        assert running.done()
        assert running.exception() is not None

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        asyncio.run(story(Post(url, b"{}", {})))


def test_tries_come_later_and_later_within_a_bound() -> None:
    rng = random.Random(1)
    waits = [backoff_s(tries, rng) for tries in range(1, 60)]
    assert all(0 < wait <= BACKOFF_S_MAX for wait in waits)
    assert min(waits[20:]) >= BACKOFF_S_MAX / 2

"""Links between peers: made when needed, made again when they break."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2psched.model.errors import Unavailable
from p2psched.model.messages import Done, GetStatus
from p2psched.model.raft import Append, AppendReply, Entry, EntryKind
from p2psched.net.auth import new_secret
from p2psched.net.link import Handlers
from p2psched.net.peers import QUEUE_BYTES_MAX, QUEUE_LEN_MAX, PeerLinks
from tests.net.conftest import Run
from tests.net.wire import PEER_A, SECRET, A, B, Recorder, fresh_peer, serving, stranger, until


def reply(round_number: int) -> AppendReply:
    return AppendReply(term=1, round=round_number, ok=True)


@asynccontextmanager
async def links_of_b(
    handlers: Handlers | None = None, *, secret: bytes = SECRET
) -> AsyncIterator[PeerLinks]:
    links = PeerLinks(
        identity=B,
        secret=secret,
        handlers=handlers if handlers is not None else Recorder().handlers,
        rng=random.Random(1),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(links.run())
        await asyncio.sleep(0)
        yield links
        task.cancel()


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def sent_until(links: PeerLinks, recorder: Recorder, count: int) -> None:
    """Repeat a message as consensus does, until `count` messages have arrived."""
    async with asyncio.TaskGroup() as group:

        async def repeat() -> None:
            while True:
                links.send(PEER_A, reply(0))
                await asyncio.sleep(0.005)

        task = group.create_task(repeat())
        await recorder.wait(lambda: len(recorder.messages) >= count)
        task.cancel()


def test_the_first_message_makes_the_link_and_travels_over_it(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server, links_of_b() as links:
            assert not links.send(PEER_A, reply(0))  # no address yet
            links.set_address(PEER_A, str(server.address))
            assert links.connected() == frozenset()
            for number in range(10):
                assert links.send(PEER_A, reply(number))
            await theirs.wait(lambda: len(theirs.messages) == 10)
            assert theirs.messages == [reply(number) for number in range(10)]
            assert links.connected() == {PEER_A}
            assert len(theirs.opened) == 1
            statistics = links.statistics()[PEER_A]
            assert (statistics.connected, statistics.sent, statistics.dropped) == (True, 10, 0)
            assert statistics.sent_bytes > 0

    run(main())


def test_messages_sent_before_run_are_kept(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server:
            links = PeerLinks(
                identity=B, secret=SECRET, handlers=theirs.handlers, rng=random.Random(1)
            )
            links.set_address(PEER_A, str(server.address))
            links.send(PEER_A, reply(5))
            async with asyncio.TaskGroup() as group:
                task = group.create_task(links.run())
                await theirs.wait(lambda: theirs.messages == [reply(5)])
                task.cancel()
            assert links.connected() == frozenset()

    run(main())


def test_a_link_that_breaks_is_made_again(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server, links_of_b() as links:
            links.set_address(PEER_A, str(server.address))
            for times in range(1, 4):
                await sent_until(links, theirs, len(theirs.messages) + 1)
                assert links.statistics()[PEER_A].connects == times
                server.connections[0].abort()
                await theirs.wait(lambda times=times: len(theirs.closed) == times)  # type: ignore[misc]  # bound now
                await until(lambda: not links.connected())

    run(main())


def test_a_peer_that_comes_later_is_found(run: Run) -> None:
    port = free_port()

    async def main() -> None:
        theirs = Recorder()
        async with links_of_b() as links:
            links.set_address(PEER_A, f"127.0.0.1:{port}")
            links.send(PEER_A, reply(1))
            await until(lambda: links.statistics()[PEER_A].dropped == 1)
            async with serving(theirs.handlers, port=port):
                await sent_until(links, theirs, 1)
                assert links.statistics()[PEER_A].attempts >= 2

    run(main())


def test_a_new_address_or_a_poke_ends_the_pause(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psched.net.peers.RETRY_MS_MIN", 60_000)
    monkeypatch.setattr("p2psched.net.peers.RETRY_MS_MAX", 60_000)
    dead, port = free_port(), free_port()

    async def main() -> None:
        theirs = Recorder()
        async with links_of_b() as links:
            links.set_address(PEER_A, f"127.0.0.1:{dead}")
            links.send(PEER_A, reply(1))
            await until(lambda: links.statistics()[PEER_A].dropped == 1)
            links.set_address(PEER_A, f"127.0.0.1:{port}")
            await until(lambda: links.statistics()[PEER_A].attempts == 2)
            links.send(PEER_A, reply(2))
            async with serving(theirs.handlers, port=port):
                await until(lambda: links._links[PEER_A].attempt is None)
                links.send(PEER_A, reply(3))
                links.poke(PEER_A)
                await theirs.wait(lambda: bool(theirs.messages))
                links.poke(PEER_A)  # of no use, and no harm
                assert theirs.messages[-1] == reply(3)

    run(main())


def test_an_attempt_that_hangs_is_given_up_for_a_new_address(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        async with (
            serving(theirs.handlers) as server,
            stranger(lambda _: b"", leaves=False) as silent,
            links_of_b() as links,
        ):
            links.set_address(PEER_A, silent)
            links.send(PEER_A, reply(1))
            await until(lambda: links._links[PEER_A].attempt is not None)
            links.set_address(PEER_A, str(server.address))
            links.set_address(PEER_A, silent)
            links.set_address(PEER_A, str(server.address))
            links.poke(PEER_A)
            await until(lambda: links.connected() == {PEER_A})

    run(main())


def test_another_peer_at_the_address_gets_nothing(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        stands_for = fresh_peer(7)
        async with serving(theirs.handlers) as server, links_of_b() as links:
            links.set_address(stands_for, str(server.address))
            links.send(stands_for, reply(1))
            await until(lambda: links.statistics()[stands_for].dropped == 1)
            assert links.connected() == frozenset()
            assert theirs.messages == []
            with pytest.raises(Unavailable, match=r"is peer aaaaaaaa now"):
                await links.call(stands_for, GetStatus())

    run(main())


def test_a_wrong_secret_is_logged_once_however_often_it_is_tried(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving() as server, links_of_b(secret=new_secret()) as links:
            links.set_address(PEER_A, str(server.address))
            for attempts in range(1, 4):
                links.send(PEER_A, reply(1))
                links.poke(PEER_A)
                await until(lambda n=attempts: links.statistics()[PEER_A].dropped == n)  # type: ignore[misc]  # bound now

    run(main())
    failures = [record for record in caplog.records if record.message == "link-failed"]
    assert len(failures) == 1
    assert "--secret-file" in failures[0].__dict__["error"]


def test_what_waits_for_a_link_is_bounded_and_the_oldest_goes(run: Run) -> None:
    entry = Entry(1, 1, EntryKind.COMMANDS, 0, 0, random.Random(1).randbytes(600_000))
    large = Append(term=1, prev_index=0, prev_term=0, commit=0, round=0, entries=(entry,))

    async def main() -> None:
        theirs = Recorder()
        links = PeerLinks(identity=B, secret=SECRET, handlers=theirs.handlers, rng=random.Random(1))
        async with serving(theirs.handlers) as server:
            links.set_address(PEER_A, str(server.address))
            for _ in range(3):
                links.send(PEER_A, large)
                assert links.statistics()[PEER_A].backlog_bytes <= QUEUE_BYTES_MAX
            for number in range(QUEUE_LEN_MAX + 5):
                links.send(PEER_A, reply(number))
            assert links.statistics()[PEER_A].dropped == 3 + 5
            async with asyncio.TaskGroup() as group:
                task = group.create_task(links.run())
                await theirs.wait(lambda: len(theirs.messages) == QUEUE_LEN_MAX)
                task.cancel()
            assert theirs.messages == [reply(number) for number in range(5, QUEUE_LEN_MAX + 5)]

    run(main())


def test_calls_make_the_link_and_fail_with_it(run: Run) -> None:
    port = free_port()

    async def main() -> None:
        theirs = Recorder()
        async with links_of_b() as links:
            with pytest.raises(Unavailable, match="no way"):
                await links.call(PEER_A, GetStatus())
            links.set_address(PEER_A, f"127.0.0.1:{port}")
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
                await links.call(PEER_A, GetStatus())
            async with serving(theirs.handlers, port=port):
                assert await links.call(PEER_A, GetStatus()) == Done()
                assert await links.call(PEER_A, GetStatus()) == Done()
                assert links.statistics()[PEER_A].connects == 1

    run(main())


def test_the_other_side_may_speak_over_our_link(run: Run) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        async with serving(theirs.handlers) as server, links_of_b(ours.handlers) as links:
            links.set_address(PEER_A, str(server.address))
            links.send(PEER_A, reply(1))
            await theirs.wait(lambda: bool(theirs.messages))
            assert theirs.opened[0].send_nowait(reply(2))
            await ours.wait(lambda: ours.messages == [reply(2)])
            assert ours.opened[0].peer == PEER_A

    run(main())


def test_a_removed_peer_loses_its_link_and_stays_away(run: Run) -> None:
    async def main() -> None:
        theirs = Recorder()
        async with serving(theirs.handlers) as server, links_of_b() as links:
            links.set_address(PEER_A, str(server.address))
            links.send(PEER_A, reply(1))
            await theirs.wait(lambda: bool(theirs.messages))
            links.remove(PEER_A)
            links.remove(PEER_A)
            await theirs.wait(lambda: bool(theirs.closed))
            assert not links.send(PEER_A, reply(2))
            assert links.statistics() == {}
            links.set_address(PEER_A, str(server.address))
            await sent_until(links, theirs, 2)

    run(main())


def test_two_peers_link_up_in_both_directions_and_poke_each_other(run: Run) -> None:
    async def main() -> None:
        at_a, at_b = Recorder(), Recorder()
        async with (
            serving(at_a.handlers, identity=A) as server_a,
            serving(at_b.handlers, identity=B) as server_b,
            links_of_b() as from_b,
        ):
            assert B.peer is not None
            from_a = PeerLinks(identity=A, secret=SECRET, handlers=NOTHING, rng=random.Random(2))
            async with asyncio.TaskGroup() as group:
                task = group.create_task(from_a.run())
                from_a.set_address(B.peer, str(server_b.address))
                from_b.set_address(PEER_A, str(server_a.address))
                from_a.send(B.peer, reply(1))
                await at_b.wait(lambda: bool(at_b.opened))
                from_b.poke(PEER_A)
                await at_a.wait(lambda: bool(at_a.opened))
                await until(lambda: from_b.connected() == {PEER_A})
                task.cancel()

    run(main())


NOTHING = Handlers(on_message=lambda _, __: None)


def test_a_name_is_looked_up_anew_at_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine behind it has moved. On the loop whose resolver can be replaced."""
    found = ["127.0.0.1"]
    asked: list[str] = []
    lookup = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: int) -> object:
        asked.append(host)
        return lookup(found[0] if host == "peer.example" else host, port, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    async def story() -> None:
        recorder = Recorder()
        async with (
            serving(recorder.handlers, host="127.0.0.2") as server,
            links_of_b() as links,
        ):
            links.set_address(PEER_A, f"peer.example:{server.address.port}")
            with pytest.raises(Unavailable):
                await links.call(PEER_A, GetStatus())
            found[0] = "127.0.0.2"
            await sent_until(links, recorder, 1)
            assert PEER_A in links.connected()

    asyncio.run(story())
    assert asked.count("peer.example") > 1

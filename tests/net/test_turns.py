"""Clients that ask without end get their share of each turn of the loop, and no more."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

from p2psched.model.messages import Call, GetStatus, PeerMessage
from p2psched.model.raft import AppendReply
from p2psched.net.dial import connect
from p2psched.net.link import Connection, Handlers
from p2psched.net.turns import BYTES_A_TURN_MAX, CALLS_A_TURN_MAX, Turns
from tests.net.conftest import Run
from tests.net.wire import CLIENT, SECRET, B, Recorder, serving, until

CLIENTS = 8
CALLS = 1_000  # of each


def test_a_turn_has_room_for_so_many_and_the_next_one_again() -> None:
    async def main() -> None:
        turns = Turns()
        for _ in range(CALLS_A_TURN_MAX):
            assert not turns.is_over
            turns.take(100)
        assert turns.is_over
        await asyncio.sleep(0)
        assert not turns.is_over

    asyncio.run(main())


def test_a_turn_has_room_for_so_many_bytes() -> None:
    async def main() -> None:
        turns = Turns()
        turns.take(BYTES_A_TURN_MAX - 1)
        assert not turns.is_over
        turns.take(1)
        assert turns.is_over

    asyncio.run(main())


def test_who_waits_goes_on_in_order_and_whoever_comes_later_stands_behind() -> None:
    async def main() -> None:
        turns = Turns()
        seen: list[str] = []

        def go_on(name: str, calls: int) -> None:
            seen.append(name)
            for _ in range(calls):
                turns.take(1)
            if len(seen) < 6:
                turns.wait(partial(go_on, name, calls))

        for name in "abc":
            turns.wait(partial(go_on, name, CALLS_A_TURN_MAX))  # each of them fills a turn
            assert turns.must_wait
        await until(lambda: len(seen) == 6)
        assert "".join(seen) == "abcabc"

    asyncio.run(main())


def test_callers_without_end_get_on_side_by_side(run: Run) -> None:
    async def main() -> None:
        heard: Counter[int] = Counter()
        half: list[int] = []  # what each had by then

        def take(connection: Connection, message: PeerMessage | Call) -> None:
            assert isinstance(message, Call)
            heard[message.id // CALLS] += 1
            if heard.total() == CLIENTS * CALLS // 2:
                half.extend(heard[number] for number in range(CLIENTS))

        async with serving(Handlers(on_message=take)) as server:
            handlers = Recorder().handlers
            clients = [
                await connect(server.address, identity=CLIENT, secret=SECRET, handlers=handlers)
                for _ in range(CLIENTS)
            ]
            for number, client in enumerate(clients):
                for call in range(CALLS):
                    assert client.send_nowait(Call(number * CALLS + call, GetStatus()))
                client.flush()
            await until(lambda: heard.total() == CLIENTS * CALLS)
            assert max(half) - min(half) <= 100, half
            for connection in clients:
                connection.close()

    run(main())


def test_a_flood_of_calls_is_taken_whole_in_many_turns_with_what_peers_say_between(
    run: Run,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        turn = heard = 0
        calls: Counter[int] = Counter()  # turn -> calls
        words: list[int] = []  # calls that were taken before each word of the peer

        def next_turn() -> None:
            nonlocal turn
            turn += 1
            if heard < CLIENTS * CALLS:
                loop.call_soon(next_turn)

        def take(connection: Connection, message: PeerMessage | Call) -> None:
            nonlocal heard
            if isinstance(message, Call):
                calls[turn] += 1
                heard += 1
            else:
                words.append(heard)

        async with serving(Handlers(on_message=take)) as server:
            handlers = Recorder().handlers
            peer = await connect(server.address, identity=B, secret=SECRET, handlers=handlers)
            clients = [
                await connect(server.address, identity=CLIENT, secret=SECRET, handlers=handlers)
                for _ in range(CLIENTS)
            ]
            next_turn()
            for client in clients:
                for number in range(CALLS):
                    assert client.send_nowait(Call(number, GetStatus()))
                client.flush()
            assert peer.send_nowait(AppendReply(term=1, round=1, ok=True))
            await until(lambda: heard == CLIENTS * CALLS and bool(words))
            # A turn of the counter may begin in the middle of one of the loop.
            assert max(calls.values()) <= 2 * CALLS_A_TURN_MAX
            assert words[0] < CLIENTS * CALLS
            for connection in (peer, *clients):
                connection.close()

    run(main())

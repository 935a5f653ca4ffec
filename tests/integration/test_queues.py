"""Queues with real peers and consumers: nothing is lost, nobody polls, the order of keys holds."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter

import pytest

from p2psched.client.client import Client
from p2psched.client.queues import Item
from p2psched.model.errors import Redelivered
from p2psched.model.lease_actions import EndLease, LeaseOver
from tests.integration.rig import Rig, until

pytestmark = pytest.mark.process

# Takes items, says so, and holds them until it is killed.
HOLDER = """
import asyncio, sys
from p2psched.client.client import Client

async def main():
    async with Client(sys.argv[1], runtime_dir=sys.argv[2]) as client:
        queue = client.queue(sys.argv[3], visibility=None)
        print("ready", flush=True)
        while True:
            item = await queue.get()
            print(item.id, flush=True)

asyncio.run(main())
"""


async def holder(rig: Rig, peer: str, queue: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, rig.cluster.peers[peer].address),
        *(str(rig.cluster.runtime_dir), queue),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.smoke
def test_a_consumer_at_an_empty_queue_wakes_with_the_put_and_asks_for_nothing(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client("a") as consumer, rig.client("b") as producer:
            queue = consumer.queue("waits")
            async with asyncio.TaskGroup() as group:
                getting = group.create_task(queue.get(wait="60s"))
                await until(lambda: takers(producer, "waits", 1))
                before = (await producer.status()).applied_index
                assert await producer.queue("waits").put({"n": 1}) == 1
                item = await getting
            assert item is not None
            assert item.value == {"n": 1}
            # The put and what gave the item are one entry. Renewed leases may be others.
            assert (await producer.status()).applied_index <= before + 3
            await item.ack()
            assert await queue.get(wait=0) is None

    asyncio.run(story())


def test_a_consumer_keeps_its_place_when_the_leader_is_killed(rig: Rig) -> None:
    async def story() -> None:
        leader, follower = await rig.leader(), await rig.follower()
        async with rig.client(follower) as consumer, rig.client(follower) as producer:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(consumer.queue("kept").get(wait="60s"))
                await until(lambda: takers(producer, "kept", 1))
                second = group.create_task(producer.queue("kept").get(wait="60s"))
                await until(lambda: takers(producer, "kept", 2))
                rig.cluster.kill(leader)
                await producer.queue("kept").put_many(["one", "two"])
                items = [await first, await second]
            assert [item.value for item in items if item is not None] == ["one", "two"]
            await producer.queue("kept").ack(*(item for item in items if item is not None))
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


async def takers(client: Client, queue: str, count: int) -> bool:
    return any(view.name == queue and view.takers == count for view in await client.queues())


def test_items_of_a_consumer_that_is_killed_come_back_before_later_ones_of_their_key(
    rig: Rig,
) -> None:
    async def story() -> None:
        async with rig.client("b") as client:
            queue = client.queue("killed")
            held = await holder(rig, "a", "killed")
            await queue.put_many(["k1", "k2", "k3"], key="k")
            await queue.put("other", key="o")
            assert held.stdout is not None
            lines = [await held.stdout.readline() for _ in range(2)]
            assert lines == [b"1\n", b"4\n"]
            held.send_signal(signal.SIGKILL)
            await held.wait()
            values: list[object] = []
            while len(values) < 4:
                async with await queue.get() as item:
                    values.append(item.value)
            assert [value for value in values if value != "other"] == ["k1", "k2", "k3"]
            assert await queue.items() == []

    asyncio.run(story())


@pytest.mark.smoke
def test_what_was_delivered_too_often_is_a_dead_letter_and_can_go_back(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client() as client:
            queue = client.queue("poison")
            await queue.configure(max_deliveries=2)
            await queue.put("bad")
            await queue.put("good")
            for _ in range(2):
                item = await queue.get(wait=0)
                assert item is not None
                assert item.value == "bad"
                await item.nack()
            good = await queue.get(wait=0)
            assert good is not None
            assert good.value == "good"
            await good.ack()
            letter = await queue.dead.get(wait=0)
            assert letter is not None
            assert (letter.value, letter.origin, letter.died_after) == ("bad", 1, 2)
            await letter.nack()
            assert await queue.redrive() == 1
            again = await queue.get(wait=0)
            assert again is not None
            assert (again.id, again.value, again.deliveries) == (3, "bad", 1)
            await again.ack()

    asyncio.run(story())


def test_who_is_too_late_hears_so_and_changes_nothing(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client("a") as slow, rig.client("b") as client:
            await client.queue("late").put("x")
            item = await slow.queue("late").get(visibility=0.2)
            other = await client.queue("late").get()
            with pytest.raises(Redelivered):
                await item.ack()
            assert other.deliveries == 2
            await other.ack()
            with pytest.raises(Redelivered):
                await other.ack()

    asyncio.run(story())


def test_a_consumer_whose_lease_has_ended_takes_on_under_another(rig: Rig) -> None:
    """As one that was cut off for a while, or asleep."""

    async def story() -> None:
        async with rig.client("a") as client:
            queue = client.queue("lapsed", visibility=None)
            await queue.put("x")
            item = await queue.get()
            old = await client.session.consumer.lease()
            await client.session.acting.act(EndLease(old), LeaseOver)
            again = await queue.get(wait=0)
            assert again is not None
            assert (again.id, again.deliveries) == (item.id, 2)
            with pytest.raises(Redelivered):
                await item.ack()
            await again.ack()
            assert await client.session.consumer.lease() != old

    asyncio.run(story())


async def produce(client: Client, mine: int, count: int, ids: list[int]) -> None:
    queue = client.queue("many")
    for number in range(count):
        key = f"{mine}-{number % 3}"
        ids.append(await queue.put([mine, number], key=key))


async def consume(client: Client, acked: list[Item], seen: list[Item], total: int) -> None:
    queue = client.queue("many", visibility="5s")
    while len(acked) < total:
        item = await queue.get(wait=0.5)
        if item is None:
            continue
        seen.append(item)
        try:
            await item.ack()
        except Redelivered:
            continue
        acked.append(item)


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_two_producers_and_three_consumers_over_a_kill_lose_nothing_and_ack_each_item_once(
    rig: Rig, victim: str
) -> None:
    each = 150

    async def story() -> None:
        async with rig.client() as cleaner:
            if any(view.name == "many" for view in await cleaner.queues()):
                await cleaner.queue("many").delete()
        ids: list[int] = []
        acked: list[Item] = []
        seen: list[Item] = []
        name = await (rig.leader() if victim == "leader" else rig.follower())
        async with (
            rig.client("a") as a,
            rig.client("b") as b,
            rig.client("c") as c,
            asyncio.TaskGroup() as group,
        ):
            for mine, client in enumerate((a, b)):
                group.create_task(produce(client, mine, each, ids))
            for client in (a, b, c):
                group.create_task(consume(client, acked, seen, 2 * each))
            await until(lambda: len(acked) > each // 2)
            rig.cluster.kill(name)
            await until(lambda: len(acked) > each)
            rig.cluster.restart(name)
        assert sorted(ids) == list(range(1, 2 * each + 1))
        assert Counter(item.id for item in acked) == Counter(ids)
        for mine in (0, 1):
            for part in range(3):
                numbers = [i.id for i in acked if i.key == f"{mine}-{part}"]
                assert numbers == sorted(numbers), "the order of a key"
        async with rig.client() as client:
            assert await client.queue("many").items() == []
        assert len({(item.id, item.receipt) for item in seen}) == len(seen)
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())

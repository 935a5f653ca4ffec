"""A queue beside Redis: items of 100 bytes that producers put and consumers take and acknowledge,
so many of each at a time. Redis holds them in one list and moves what is taken to another one
(`BLMOVE`), its reliable queue; it has one disk, and nothing comes back by itself.

Every item has to come out once, and nothing may be left.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from bench.load import Servers
from bench.measures.ledger import VALUE
from bench.registry import OURS, Measure, Stage

REDIS: Final = "redis"
LANES: Final = (1, 32)  # producers, and as many consumers
COUNTS: Final = {1: 600, 32: 6_000}  # items
_runs = itertools.count()

Put = Callable[[int, bytes], Awaitable[object]]  # of a lane
Take = Callable[[int], Awaitable[bytes]]  # and acknowledge


async def _drive(
    put: Put, take: Take, servers: Servers, *, lanes: int, count: int
) -> Mapping[str, float]:
    values = [b"%08d" % number + VALUE[8:] for number in range(count)]
    to_put, to_take = iter(values), iter(range(count))
    found: list[bytes] = []

    async def produce(lane: int) -> None:
        for value in to_put:
            await put(lane, value)

    async def consume(lane: int) -> None:
        for _ in to_take:
            found.extend([await take(lane)])

    servers_s, client_s, started = servers.cpu_s(), time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for lane in range(lanes):
            group.create_task(produce(lane))
            group.create_task(consume(lane))
    took_s, client_s = time.perf_counter() - started, time.process_time() - client_s
    assert sorted(found) == values, "an item is missing, or came twice"
    return {
        "per_s": count / took_s,
        "servers_us": (servers.cpu_s() - servers_s) / count * 1e6,
        "client_us": client_s / count * 1e6,
    }


async def ours(stage: Stage, *, lanes: int) -> Mapping[str, float]:
    name = f"queue{next(_runs)}"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stage.cluster.client(n)) for n in range(2)]
        queues = [client.queue(name) for client in clients]

        async def put(lane: int, value: bytes) -> None:
            await queues[lane % 2].put(value)

        async def take(lane: int) -> bytes:
            item = await queues[lane % 2].get()
            assert isinstance(item.value, bytes)
            await item.ack()
            return item.value

        found = await _drive(put, take, stage.cluster, lanes=lanes, count=COUNTS[lanes])
        await queues[0].delete()
        return found


async def redis(stage: Stage, *, lanes: int) -> Mapping[str, float]:
    await stage.redis.start()
    name = f"queue{next(_runs)}"
    putting = await stage.redis.client()
    taking = [await stage.redis.client() for _ in range(lanes)]  # one that waits blocks its own

    async def put(_: int, value: bytes) -> None:
        await putting.call("LPUSH", name, value)

    async def take(lane: int) -> bytes:
        value = await taking[lane].call("BLMOVE", name, f"{name}/taken", "RIGHT", "LEFT", 0)
        assert isinstance(value, bytes)
        assert await taking[lane].call("LREM", f"{name}/taken", 1, value) == 1
        return value

    try:
        found = await _drive(put, take, stage.redis, lanes=lanes, count=COUNTS[lanes])
        assert await putting.call("EXISTS", name, f"{name}/taken") == 0, "something is left"
    finally:
        for client in (putting, *taking):
            client.close()
    return found


MEASURES: Final = tuple(
    Measure(
        f"queue_{lanes}",
        f"items through a queue, {lanes} producers and {lanes} consumers, 3 peers",
        {OURS: partial(ours, lanes=lanes), REDIS: partial(redis, lanes=lanes)},
        slots=(1, 0, 0),
    )
    for lanes in LANES
)

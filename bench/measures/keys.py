"""Keys beside etcd: puts of 100 bytes under new keys, and linearizable reads, with so many in
flight. As `ledger` measures commits: the same disks, as many members, one client process.

Every put is looked for at the end of its run, on every member by itself, and taken away again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from bench.load import measure
from bench.measures.ledger import COUNTS, ETCD, VALUE, etcd_commits, etcd_reads, sessions
from bench.registry import OURS, Measure, Stage
from p2psched.client.keys import Keys, delete
from p2psched.model.key_actions import OPS_MAX

IN_FLIGHT: Final = (1, 8, 64)
REDIS: Final = "redis"  # one server, one disk: it promises less
_AGREE_TIMEOUT_S: Final = 30.0
_runs = itertools.count()


async def puts(stage: Stage, *, in_flight: int) -> Mapping[str, float]:
    prefix, numbers = f"run{next(_runs)}/", itertools.count()
    async with AsyncExitStack() as stack:
        lanes = [Keys(one) for one in await sessions(stack, stage, in_flight, "leader")]

        async def call(lane: int) -> None:
            await lanes[lane % len(lanes)].put(f"{prefix}{next(numbers):08d}", VALUE)

        found = await measure(call, stage.cluster, in_flight=in_flight, count=COUNTS[in_flight])
        put = next(numbers)
        for number in range(len(stage.cluster.processes)):
            async with stage.cluster.client(number) as client, asyncio.timeout(_AGREE_TIMEOUT_S):
                held = (await client.kv.range(prefix)).entries
                assert len(held) == put, f"peer {number} has {len(held)} of {put} keys"
        for start in range(0, put, OPS_MAX):
            gone = [delete(entry.key) for entry in held[start : start + OPS_MAX]]
            await lanes[0].txn(then=gone)
        return found


async def gets(stage: Stage, *, in_flight: int) -> Mapping[str, float]:
    async with AsyncExitStack() as stack:
        lanes = [Keys(one) for one in await sessions(stack, stage, in_flight, "leader")]
        names = [f"read/{number:08d}" for number in range(in_flight)]
        for name in names:
            await lanes[0].put(name, VALUE)

        async def call(lane: int) -> None:
            entry = await lanes[lane % len(lanes)].get(names[lane])
            assert entry is not None
            assert entry.value == VALUE

        return await measure(call, stage.cluster, in_flight=in_flight, count=COUNTS[in_flight])


async def redis_puts(stage: Stage, *, in_flight: int) -> Mapping[str, float]:
    await stage.redis.start()
    client, prefix, numbers = await stage.redis.client(), f"run{next(_runs)}/", itertools.count()

    async def call(_: int) -> None:
        assert await client.call("SET", f"{prefix}{next(numbers):08d}", VALUE) == b"OK"

    try:
        return await measure(call, stage.redis, in_flight=in_flight, count=COUNTS[in_flight])
    finally:
        client.close()


async def redis_gets(stage: Stage, *, in_flight: int) -> Mapping[str, float]:
    await stage.redis.start()
    client = await stage.redis.client()
    for lane in range(in_flight):
        await client.call("SET", f"read/{lane:08d}", VALUE)

    async def call(lane: int) -> None:
        assert await client.call("GET", f"read/{lane:08d}") == VALUE

    try:
        return await measure(call, stage.redis, in_flight=in_flight, count=COUNTS[in_flight])
    finally:
        client.close()


def _measures() -> Iterator[Measure]:
    for kind, ours, etcd, redis in (
        ("puts", puts, etcd_commits, redis_puts),
        ("gets", gets, etcd_reads, redis_gets),
    ):
        for in_flight in IN_FLIGHT:
            yield Measure(
                f"kv_{kind}_{in_flight}",
                f"{kind} of keys, {in_flight} in flight, 3 peers",
                {
                    OURS: partial(ours, in_flight=in_flight),
                    ETCD: partial(etcd, in_flight=in_flight),
                    REDIS: partial(redis, in_flight=in_flight),
                },
                slots=(1, 0, 0),
            )


MEASURES: Final = (*_measures(),)

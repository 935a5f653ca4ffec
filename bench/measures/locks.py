"""Locks beside etcd: one lock that takers on two peers pass on to each other, in turn.

Of each hand-over it is measured what passes from when its holder begins to let go until the next
one has it. That only one has it at a time is looked at, too.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from bench.load import measure
from bench.measures.ledger import ETCD
from bench.registry import OURS, Measure, Stage
from bench.stats import at

REDIS: Final = "redis"
TAKERS: Final = (1, 8)
COUNTS: Final = {1: 300, 8: 800}  # takers -> hand-overs
TTL_S: Final = 60
_runs = itertools.count()


class HandOvers:
    """Of one lock."""

    def __init__(self) -> None:
        self.times_ms: list[float] = []
        self._inside = 0
        self._left_s = 0.0

    def enter(self) -> None:
        self._inside += 1
        assert self._inside == 1, "two hold one lock"
        if self._left_s:
            self.times_ms.append((time.perf_counter() - self._left_s) * 1000)

    def leave(self) -> None:
        self._inside -= 1
        self._left_s = time.perf_counter()


async def ours(stage: Stage, *, takers: int) -> Mapping[str, float]:
    name, overs = f"lock{next(_runs)}", HandOvers()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stage.cluster.client(n)) for n in range(2)]

        async def call(lane: int) -> None:
            async with clients[lane % 2].lock(name, ttl=TTL_S):
                overs.enter()
                overs.leave()

        found = await measure(call, stage.cluster, in_flight=takers, count=COUNTS[takers])
        assert not await clients[0].locks(name)
    return _with(found, overs)


async def etcd(stage: Stage, *, takers: int) -> Mapping[str, float]:
    await stage.etcd.start()
    # Not under the keys that other measures have put: a lock of etcd waits for those.
    name, overs = f"lock{next(_runs)}".encode(), HandOvers()
    clients = [await stage.etcd.client(leader=leads) for leads in (True, False)]
    try:
        leases = [await clients[lane % 2].lease(TTL_S) for lane in range(takers)]

        async def call(lane: int) -> None:
            client = clients[lane % 2]
            key = await client.lock(name, leases[lane])
            overs.enter()
            overs.leave()
            await client.unlock(key)

        found = await measure(call, stage.etcd, in_flight=takers, count=COUNTS[takers])
    finally:
        for client in clients:
            client.close()
    return _with(found, overs)


async def redis(stage: Stage, *, takers: int) -> Mapping[str, float]:
    """A list with one token in it, which takers wait for in turn: durable, and no lease."""
    await stage.redis.start()
    name, overs = f"lock{next(_runs)}", HandOvers()
    clients = [await stage.redis.client() for _ in range(takers)]  # who waits blocks its own
    try:
        await clients[0].call("LPUSH", name, "token")

        async def call(lane: int) -> None:
            assert await clients[lane].call("BLPOP", name, 0) == [name.encode(), b"token"]
            overs.enter()
            overs.leave()
            await clients[lane].call("LPUSH", name, "token")

        found = await measure(call, stage.redis, in_flight=takers, count=COUNTS[takers])
    finally:
        for client in clients:
            client.close()
    return _with(found, overs)


def _with(found: Mapping[str, float], overs: HandOvers) -> Mapping[str, float]:
    return {
        **found,
        "hand_over_p50_ms": at(overs.times_ms, 0.5),
        "hand_over_p99_ms": at(overs.times_ms, 0.99),
    }


MEASURES: Final = tuple(
    Measure(
        f"locks_{takers}",
        f"one lock, taken and let go of by {takers} in turn, 3 peers",
        {
            OURS: partial(ours, takers=takers),
            ETCD: partial(etcd, takers=takers),
            REDIS: partial(redis, takers=takers),
        },
        slots=(1, 0, 0),
    )
    for takers in TAKERS
)

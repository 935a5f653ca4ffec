"""A load of calls, so many in flight at any time, from this one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from bench.stats import at

Call = Callable[[int], Awaitable[None]]  # takes the number of its lane


class Servers(Protocol):
    """Whom the calls reach: processes of their own."""

    def cpu_s(self) -> float:
        """CPU seconds so far of all of them."""

    async def syncs(self) -> float:
        """How often all of them have synced their logs so far."""


async def measure(
    call: Call, servers: Servers, *, in_flight: int, count: int
) -> Mapping[str, float]:
    """`count` calls after as many as are in flight, which warm it up. CPU and syncs are of one
    call; the client's CPU is that of this process, the servers' that of all members together."""
    await drive(call, in_flight=in_flight, count=in_flight)
    syncs = await servers.syncs()
    servers_s, client_s, started = servers.cpu_s(), time.process_time(), time.perf_counter()
    times_ms = await drive(call, in_flight=in_flight, count=count)
    took_s, client_s = time.perf_counter() - started, time.process_time() - client_s
    servers_s = servers.cpu_s() - servers_s
    return {
        "per_s": count / took_s,
        "p50_ms": at(times_ms, 0.5),
        "p99_ms": at(times_ms, 0.99),
        "servers_us": servers_s / count * 1e6,
        "client_us": client_s / count * 1e6,
        "syncs": (await servers.syncs() - syncs) / count,
    }


async def drive(call: Call, *, in_flight: int, count: int) -> list[float]:
    """What each call took, in ms. A lane begins its next call once its last one has ended."""
    times_ms: list[float] = []
    left = iter(range(count))

    async def lane(number: int) -> None:
        for _ in left:
            started = time.perf_counter()
            await call(number)
            times_ms.append((time.perf_counter() - started) * 1000)

    async with asyncio.TaskGroup() as lanes:
        for number in range(in_flight):
            lanes.create_task(lane(number))
    return times_ms

"""Small functions: many in one job, one at a time, from many clients at once."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from bench.cluster import running
from bench.registry import OURS, Measure, Stage, Unsupported
from bench.stats import at
from bench.work import is_work, work
from p2psched import Client

FUNCTIONS: Final = 10_000
MANY: Final = 1_000_000
ROUND_TRIPS: Final = 300
CLIENTS: Final = 64
ROUNDS: Final = 200  # of each client: the first few only tell it where to go
BUSY: Final = 12
LOOK_S: Final = 0.1  # between two looks at a running job
SHORT: Final = 400
SHORT_S: Final = 0.01

_PATH: Final = "bench.work:work"
_SYNCS: Final = 200


async def functions(stage: Stage) -> Mapping[str, float]:
    """10,000 distinct calls in one job, all results brought back and verified."""
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    job = await stage.client.map(_PATH, range(FUNCTIONS))
    values = await job.results()
    return _rate(stage, FUNCTIONS, cpu_s, started, good=is_work(values, FUNCTIONS))


async def pool_one(stage: Stage) -> Mapping[str, float]:
    """The standard library's pool as most programs use it: one task a message."""
    return await asyncio.to_thread(_pool, stage, 1)


async def pool_chunks(stage: Stage) -> Mapping[str, float]:
    """The same in chunks that suit it."""
    return await asyncio.to_thread(_pool, stage, 512)


def _pool(stage: Stage, chunk: int) -> Mapping[str, float]:
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    values: list[object] = list(stage.pool.map(work, range(FUNCTIONS), chunksize=chunk))
    return _rate(stage, FUNCTIONS, cpu_s, started, good=is_work(values, FUNCTIONS))


def _rate(
    stage: Stage, count: int, cpu_s: float, started: float, *, good: bool
) -> dict[str, float]:
    took_s = time.perf_counter() - started
    assert good, "a result is missing, or wrong"
    return {"per_s": count / took_s, "cpu_us": (stage.cpu_s() - cpu_s) / count * 1e6}


async def a_million(stage: Stage) -> Mapping[str, float]:
    """In a client process of its own, whose memory is looked at; and what others see meanwhile."""
    cpu_s = stage.cluster.cpu_s()
    stage.cluster.reset_peaks()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.million", stage.cluster.addresses[0]),
        *(str(stage.cluster.runtime_dir), str(MANY)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    times: dict[str, list[float]] = {"show": [], "jobs": []}
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(_look(stage.client, times))
        out, err = await process.communicate()
        looking.cancel()
    if process.returncode:
        raise Unsupported(err.decode().strip().rpartition("\n")[2])
    found: dict[str, float] = json.loads(out)
    found["cpu_us"] += (stage.cluster.cpu_s() - cpu_s) / MANY * 1e6
    for name, seen in times.items():
        found[f"{name}_ms_p50"], found[f"{name}_ms_p95"] = at(seen, 0.5), at(seen, 0.95)
    return {**found, **stage.cluster.peaks_mib()}


async def _look(client: Client, times: Mapping[str, list[float]]) -> None:
    """What `job show` and `jobs` of another client take, until it is cancelled."""
    while True:
        started = time.perf_counter()
        await client.job("last")  # the same call as `job show last`
        shown = time.perf_counter()
        await client.jobs()
        times["show"].append((shown - started) * 1000)
        times["jobs"].append((time.perf_counter() - shown) * 1000)
        await asyncio.sleep(LOOK_S)


async def round_trips(stage: Stage) -> Mapping[str, float]:
    """From submit to value, one task after the other."""
    times = []
    cpu_s = stage.cpu_s()
    for number in range(ROUND_TRIPS):
        started = time.perf_counter()
        assert await stage.client.submit(_PATH, number) == work(number)
        times.append((time.perf_counter() - started) * 1000)
    return _latency(times, stage.cpu_s() - cpu_s)


async def pool_round_trips(stage: Stage) -> Mapping[str, float]:
    times = []
    cpu_s = stage.cpu_s()
    for number in range(ROUND_TRIPS):
        started = time.perf_counter()
        assert stage.pool.submit(work, number).result() == work(number)
        times.append((time.perf_counter() - started) * 1000)
    return _latency(times, stage.cpu_s() - cpu_s)


def _latency(times: list[float], cpu_s: float) -> dict[str, float]:
    return {
        "p50_ms": at(times, 0.5),
        "p99_ms": at(times, 0.99),
        "cpu_us": cpu_s / len(times) * 1e6,
    }


async def frames_batched(stage: Stage) -> Mapping[str, float]:
    """Frames that all peers send for 10,000 tasks in one job (S73)."""
    return await _frames(stage, [range(FUNCTIONS)])


async def frames_single(stage: Stage) -> Mapping[str, float]:
    """The same for tasks that come one by one: what batches save."""
    return await _frames(stage, [[number] for number in range(ROUND_TRIPS)])


async def _frames(stage: Stage, jobs: Sequence[Sequence[int]]) -> Mapping[str, float]:
    async with AsyncExitStack() as stack:
        peers = len(stage.cluster.processes)
        watching = [
            await stack.enter_async_context(stage.cluster.client(number)) for number in range(peers)
        ]
        before = [(await client.status()).frames_sent for client in watching]
        for numbers in jobs:
            await (await stage.client.map(_PATH, numbers)).results()
        after = [(await client.status()).frames_sent for client in watching]
    tasks = sum(map(len, jobs))
    return {"per_1000_tasks": (sum(after) - sum(before)) / tasks * 1000}


async def disk(stage: Stage) -> Mapping[str, float]:
    """The floor under every commit: a small append with fdatasync."""
    times = await asyncio.to_thread(stage.cluster.sync_times_us, _SYNCS)
    return {"p50_us": at(times, 0.5), "p99_us": at(times, 0.99)}


async def many_clients(stage: Stage) -> Mapping[str, float]:
    """Connections that each submit one task and wait for its value, again and again."""
    async with AsyncExitStack() as stack:
        peers = len(stage.cluster.processes)
        clients = [
            await stack.enter_async_context(stage.cluster.client(number % peers))
            for number in range(CLIENTS)
        ]
        found: list[object] = [None] * (CLIENTS * ROUNDS)

        async def loop(number: int) -> None:
            for task in range(number, CLIENTS * ROUNDS, CLIENTS):
                found[task] = await clients[number].submit(_PATH, task)

        cpu_s, started = stage.cpu_s(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(loop(number))
        good = is_work(found, len(found))
        return _rate(stage, len(found), cpu_s, started, good=good)


async def busy_functions(stage: Stage) -> Mapping[str, float]:
    """How much faster two peers with a slot each compute than one, both in clusters of three."""
    async with running((1, 0, 0)) as cluster, cluster.client() as client:
        one_s = await _busy(client)
    two_s = await _busy(stage.client)
    return {"speed_up": one_s / two_s, "one_s": one_s, "two_s": two_s}


async def short_items(stage: Stage) -> Mapping[str, float]:
    """Functions of 10 ms. `over_ideal`: how much longer than work / slots they take."""
    started = time.perf_counter()
    job = await stage.client.map("bench.work:ten_ms", range(SHORT))
    values = await job.results()
    took_s = time.perf_counter() - started
    assert values == list(range(SHORT))
    return {"over_ideal": took_s / (SHORT * SHORT_S / 2)}


async def _busy(client: Client) -> float:
    await (await client.map("bench.work:busy", range(2))).results()  # workers are up
    started = time.perf_counter()
    job = await client.map("bench.work:busy", range(BUSY))
    values = await job.results()
    took_s = time.perf_counter() - started
    assert len(set(values)) == BUSY
    return took_s


MEASURES: Final = (
    Measure("disk", "one small append with fdatasync", {"here": disk}),
    Measure(
        "functions_10k",
        "10,000 small functions in one job",
        {OURS: functions, "pool": pool_one, "pool_chunks": pool_chunks},
        rivals=True,
    ),
    Measure("functions_1m", "a million in one job", {OURS: a_million}, repeat_max=3),
    Measure(
        "round_trip",
        "one task, submit to value",
        {OURS: round_trips, "pool": pool_round_trips},
        rivals=True,
    ),
    Measure(
        "clients_64", "64 clients that each wait for one task after another", {OURS: many_clients}
    ),
    Measure(
        "frames",
        "frames between peers and to the client, in one job and one by one",
        {"batched": frames_batched, "single": frames_single},
    ),
    Measure("speed_up", "computing on two one-slot peers against one", {OURS: busy_functions}),
    Measure("items_10ms", "400 functions of 10 ms", {OURS: short_items}),
)

"""What is measured. Each returns plain numbers; `run` repeats, compares and records them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import psutil

from bench.cluster import Cluster
from p2psched import Client
from p2psched.model.taskset import TaskSet

FUNCTIONS = 10_000
PROGRAMS = 2_000
ROUND_TRIPS = 300
IDLE_S = 10.0


def work(number: int) -> int:
    """A small function with a result that can be verified."""
    return number * number + 1


EXPECTED = [work(number) for number in range(FUNCTIONS)]


async def functions(cluster: Cluster, client: Client) -> dict[str, float]:
    """10,000 distinct calls in one job, all results brought back and verified."""
    cpu = cluster.cpu_s() + _own_cpu_s()
    started = time.perf_counter()
    job = await client.map("bench.measures:work", range(FUNCTIONS))
    values = await job.results()
    took = time.perf_counter() - started
    assert values == EXPECTED
    cpu_us = (cluster.cpu_s() + _own_cpu_s() - cpu) / FUNCTIONS * 1e6
    return {"per_s": FUNCTIONS / took, "cpu_us": cpu_us}


def pool_functions(pool: ProcessPoolExecutor) -> dict[str, float]:
    """The same with the standard library's pool, in the chunks that suit it."""
    started = time.perf_counter()
    values = list(pool.map(work, range(FUNCTIONS), chunksize=512))
    took = time.perf_counter() - started
    assert values == EXPECTED
    return {"per_s": FUNCTIONS / took}


def pool_functions_unchunked(pool: ProcessPoolExecutor) -> dict[str, float]:
    """The same as most programs write it: one task a message."""
    started = time.perf_counter()
    values = list(pool.map(work, range(FUNCTIONS)))
    took = time.perf_counter() - started
    assert values == EXPECTED
    return {"per_s": FUNCTIONS / took}


async def round_trips(client: Client) -> list[float]:
    """Milliseconds from submit to value, one task after the other."""
    times = []
    for number in range(ROUND_TRIPS):
        started = time.perf_counter()
        job = await client.map("bench.measures:work", [number])
        assert await job.result() == number * number + 1
        times.append((time.perf_counter() - started) * 1000)
    return sorted(times)


async def programs(client: Client) -> dict[str, float]:
    """2,000 /bin/true in one job."""
    started = time.perf_counter()
    job = await client.submit_program(["/bin/true"], tasks=TaskSet.of(0, PROGRAMS))
    view = await job.wait()
    assert view.succeeded == PROGRAMS
    return {"per_s": PROGRAMS / (time.perf_counter() - started)}


def spawned_programs() -> dict[str, float]:
    """The limit: posix_spawn and wait in two threads, nothing else."""

    def spawn(count: int) -> None:
        for _ in range(count):
            pid = os.posix_spawn("/bin/true", ["true"], {})
            os.waitpid(pid, 0)

    started = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(spawn, [PROGRAMS // 2] * 2))
    return {"per_s": PROGRAMS / (time.perf_counter() - started)}


async def footprint(cluster: Cluster) -> dict[str, float]:
    """PSS in MiB and idle CPU in percent of a core: the leader and its worker, and a follower."""
    before = [_cpu_s(cluster.family(number)) for number in range(len(cluster.processes))]
    await asyncio.sleep(IDLE_S)
    found: dict[str, float] = {}
    for number in range(len(cluster.processes)):
        family = cluster.family(number)
        pss = sum(process.memory_full_info().pss for process in family) / 2**20
        percent = (_cpu_s(family) - before[number]) / IDLE_S * 100
        found[f"pss_mib_{number}"] = pss
        found[f"processes_{number}"] = len(family)
        found[f"idle_cpu_percent_{number}"] = percent
    return found


def sync_us(folder: str) -> list[float]:
    """What one small append with fdatasync costs here: the floor under every commit."""
    path = os.path.join(folder, "sync-probe")  # noqa: PTH118 (beside os.open)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    times = []
    try:
        for _ in range(200):
            started = time.perf_counter()
            os.write(descriptor, b"x" * 300)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - started) * 1e6)
    finally:
        os.close(descriptor)
        os.unlink(path)  # noqa: PTH108 (beside os.open)
    return sorted(times)


def _cpu_s(family: list[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _own_cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system

"""Programs: how many quick ones, and how well ten milliseconds of each are used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from bench.registry import OURS, Measure, Stage
from bench.work import PROGRAM, spawn
from p2psched.model.taskset import TaskSet

PROGRAMS: Final = 2_000
SHORT: Final = 400
SHORT_S: Final = 0.01


async def programs(stage: Stage) -> Mapping[str, float]:
    """2,000 /bin/true in one job, until every exit code is committed and here."""
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    job = await stage.client.submit_program([PROGRAM], tasks=TaskSet.of(0, PROGRAMS))
    found = {result.index: result.header["exit"] async for result in job.as_completed()}
    took_s = time.perf_counter() - started
    assert found == dict.fromkeys(range(PROGRAMS), 0)
    return {"per_s": PROGRAMS / took_s, "cpu_us": (stage.cpu_s() - cpu_s) / PROGRAMS * 1e6}


async def spawned(stage: Stage) -> Mapping[str, float]:
    """The limit: posix_spawn and wait in two processes, nothing else."""
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    counts = await asyncio.to_thread(
        lambda: list(stage.pool.map(spawn, [PROGRAMS // 2] * 2, chunksize=1))
    )
    took_s = time.perf_counter() - started
    assert sum(counts) == PROGRAMS
    return {"per_s": PROGRAMS / took_s, "cpu_us": (stage.cpu_s() - cpu_s) / PROGRAMS * 1e6}


async def short_programs(stage: Stage) -> Mapping[str, float]:
    """Programs of 10 ms. `over_ideal`: how much longer than work / slots they take."""
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    argv = ["/bin/sleep", str(SHORT_S)]
    job = await stage.client.submit_program(argv, tasks=TaskSet.of(0, SHORT))
    view = await job.wait()
    took_s = time.perf_counter() - started
    assert view.succeeded == SHORT
    return {
        "over_ideal": took_s / (SHORT * SHORT_S / 2),
        "per_s": SHORT / took_s,
        "cpu_us": (stage.cpu_s() - cpu_s) / SHORT * 1e6,
    }


MEASURES: Final = (
    Measure("programs", "2,000 /bin/true", {OURS: programs, "posix_spawn": spawned}, rivals=True),
    Measure("programs_10ms", "400 programs of 10 ms", {OURS: short_programs}),
)

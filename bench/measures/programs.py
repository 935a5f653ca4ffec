"""Programs: how many quick ones, and how well ten milliseconds of each are used."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from typing import Final

from bench.registry import OURS, Measure, Stage
from bench.work import PROGRAM, spawn
from p2psched.client.batches import outcomes, pack_batches
from p2psched.model.taskset import TaskSet

PROGRAMS: Final = 2_000
SHORT: Final = 400
SHORT_S: Final = 0.01
INPUTS: Final = 400
BATCH: Final = 200
# Ten milliseconds or so until it reads its first line.
FILTER: Final = (
    *(os.path.realpath(sys.executable), "-S", "-c"),  # no shim on PATH that takes longer
    "import sys\nfor line in sys.stdin: print(int(line) + 1)",
)


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


async def batches(stage: Stage) -> Mapping[str, float]:
    """400 inputs for a program that takes ten milliseconds to start, 200 for each start."""
    return await _inputs(stage, BATCH)


async def one_each(stage: Stage) -> Mapping[str, float]:
    """The same, a start for each input."""
    return await _inputs(stage, 1)


async def _inputs(stage: Stage, batch: int) -> Mapping[str, float]:
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    packed = pack_batches(FILTER, (b"%d" % n for n in range(INPUTS)), batch=batch)
    job = await stage.client.submit_spec(packed.spec, uploads=packed.uploads)
    view = await job.wait()
    found = [outcome.out async for _, outcome in outcomes(stage.client.session, view)]
    took_s = time.perf_counter() - started
    assert found == [b"%d" % (n + 1) for n in range(INPUTS)]
    return {"per_s": INPUTS / took_s, "cpu_us": (stage.cpu_s() - cpu_s) / INPUTS * 1e6}


MEASURES: Final = (
    Measure("programs", "2,000 /bin/true", {OURS: programs, "posix_spawn": spawned}, rivals=True),
    Measure("programs_10ms", "400 programs of 10 ms", {OURS: short_programs}),
    Measure(
        "inputs_10ms",
        "400 inputs for a program that starts in 10 ms, 200 a start",
        {OURS: batches, "one_each": one_each},
        repeat_max=5,
    ),
)

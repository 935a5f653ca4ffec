"""How long work takes beside the least that it could, whoever got it first; and how fast it moves.

Tasks sleep, so the peers of one machine do not take each other's cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from bench.misplace import submit_on
from bench.registry import OURS, Measure, Run, Stage
from bench.work import ten_ms, uneven
from p2psched.client.functions import calls, pack
from p2psched.client.job import Job
from p2psched.store.folder import read_secret_file

TASKS: Final = 200
EVEN_S: Final = TASKS * 0.01
UNEVEN_S: Final = TASKS / 10 * 0.5 + TASKS * 9 / 10 * 0.01
MOVES: Final = 20  # jobs that are placed badly, one after another, to see how fast tasks move


def _slots(stage: Stage) -> int:
    return sum(stage.cluster.slots)


def _ours(path: str, work_s: float) -> Run:
    async def run(stage: Stage) -> Mapping[str, float]:
        started = time.perf_counter()
        job = await stage.client.map(path, range(TASKS))
        assert await job.results() == list(range(TASKS))
        return {"over_ideal": (time.perf_counter() - started) * _slots(stage) / work_s}

    return run


def _pool(function: Callable[[int], int], work_s: float) -> Run:
    async def run(stage: Stage) -> Mapping[str, float]:
        slots = _slots(stage)

        def work() -> float:
            with ProcessPoolExecutor(slots) as pool:
                list(pool.map(abs, range(100)))
                started = time.perf_counter()
                assert list(pool.map(function, range(TASKS))) == list(range(TASKS))
                return time.perf_counter() - started

        return {"over_ideal": await asyncio.to_thread(work) * slots / work_s}

    return run


async def _on_one(stage: Stage) -> Job:
    """All of the tasks are the second peer's, which has one slot like the others."""
    packed = pack("bench.work:ten_ms", calls(range(TASKS)), modules="none")
    secret = read_secret_file(stage.cluster.data(0) / "secret")
    return await submit_on(stage.client, secret, packed.spec, stage.cluster.data(1).name)


async def _misplaced(stage: Stage) -> Mapping[str, float]:
    started = time.perf_counter()
    job = await _on_one(stage)
    assert await job.results() == list(range(TASKS))
    took_s = time.perf_counter() - started
    moved = (await job.show()).moved
    return {"over_ideal": took_s * _slots(stage) / EVEN_S, "moved": moved}


async def round_trips(stage: Stage) -> Mapping[str, float]:
    """From the question of a peer with nothing to do until the tasks are its own, as `status`
    tells it, in whole milliseconds."""
    for _ in range(MOVES):
        await (await _on_one(stage)).results()
    async with stage.cluster.client(0) as client:
        found = await client.status()
    assert found.steals_got >= MOVES // 2
    return {"p50_ms": found.steal_ms_p50, "p99_ms": found.steal_ms_p99}


def _measures(peers: int, slots: tuple[int, ...]) -> tuple[Measure, ...]:
    return (
        Measure(
            f"even_{peers}",
            f"200 functions of 10 ms on {peers} peers with a slot each",
            {OURS: _ours("bench.work:ten_ms", EVEN_S), "pool": _pool(ten_ms, EVEN_S)},
            slots=slots,
            rivals=peers == RIVAL_SLOTS,
        ),
        Measure(
            f"uneven_{peers}",
            "the same, and every tenth takes 0.5 s",
            {OURS: _ours("bench.work:uneven", UNEVEN_S), "pool": _pool(uneven, UNEVEN_S)},
            slots=slots,
            rivals=peers == RIVAL_SLOTS,
        ),
        Measure(
            f"misplaced_{peers}",
            "200 functions of 10 ms, all given to one of the peers first",
            {OURS: _misplaced},
            slots=slots,
            rivals=peers == RIVAL_SLOTS,
        ),
    )


RIVAL_SLOTS: Final = 2
MEASURES: Final = (
    *_measures(2, (1, 1, 0)),
    Measure("steals", "from asking for tasks to having them", {OURS: round_trips}, slots=(1, 1, 0)),
    *_measures(4, (1, 1, 1, 1)),
)

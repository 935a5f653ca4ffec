"""A whole peer dies in the midst of work, with all of its processes: what its client sees.

Two peers have a slot each, the third one only votes. `naps` has the work, and how it is judged;
rivals lose a worker with all of its processes, or their scheduler or broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from bench import naps
from bench.cluster import Cluster
from bench.judge import judge_history
from bench.registry import OURS, Found, Measure, Stage
from p2psched import Client
from p2psched.client.job import Job

SLOTS: Final = (1, 1, 0)
LOOK_S: Final = 1.0  # at the side file


async def lose_worker(stage: Stage) -> Found:
    """The one with a slot that does not lead."""
    leader = await _working_leader(stage.cluster)
    return await _lose(stage.cluster, victim=1 - leader)


async def lose_leader(stage: Stage) -> Found:
    """It has a slot, too: half of the work was its."""
    return await _lose(stage.cluster, victim=await _working_leader(stage.cluster))


async def _working_leader(cluster: Cluster) -> int:
    """Let one with a slot lead. Raises TimeoutError."""
    voter_only = SLOTS.index(0)
    await cluster.wait_whole(len(SLOTS))
    leader = await cluster.number_of("leader")
    while leader == voter_only:
        process = cluster.processes[leader]
        process.terminate()  # a clean stop hands the lead over
        await asyncio.to_thread(process.wait)
        cluster.restart(leader)
        await cluster.wait_whole(len(SLOTS))
        leader = await cluster.number_of("leader")
    return leader


async def _lose(cluster: Cluster, victim: int) -> Found:
    await cluster.wait_agreed()
    with tempfile.TemporaryDirectory(dir=cluster.folder) as folder:
        side = Path(folder) / "side"
        async with cluster.client(1 - victim) as client:
            found = await _naps(cluster, client, victim, side)
    cluster.restart(victim)
    await cluster.wait_whole(len(SLOTS))
    return found


async def _naps(cluster: Cluster, client: Client, victim: int, side: Path) -> Found:
    began_s = time.monotonic()
    job = await client.map(naps.nap, range(naps.TASKS), [str(side)] * naps.TASKS)
    await asyncio.sleep(began_s + naps.KILL_AT_S - time.monotonic())
    killed_s = time.monotonic()
    _kill_all(cluster.family(victim))
    cluster.processes[victim].wait()
    try:
        await _wait_moving(job, side, began_s)
    except TimeoutError:
        took_s = None
    else:
        took_s = time.monotonic() - began_s
        assert await job.results() == list(range(naps.TASKS))
        await judge_history(job)
    succeeded = (await job.show()).succeeded
    return naps.told(side, killed_s=killed_s, results=succeeded, took_s=took_s)


async def _wait_moving(job: Job, side: Path, began_s: float) -> None:
    """Until it has ended, without asking again and again: the peers have other things to do.
    Raises TimeoutError once no task has begun or ended for a while."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(naps.STILL_S) as limit, asyncio.TaskGroup() as group:

        async def look() -> None:
            while True:
                still_s = time.monotonic() - naps.last_s(side, began_s)
                limit.reschedule(loop.time() + naps.STILL_S - still_s)
                await asyncio.sleep(LOOK_S)

        looking = group.create_task(look())
        await job.wait()
        looking.cancel()


def _kill_all(family: list[psutil.Process]) -> None:
    """kill -9 of a peer, its starter, its workers and its spawners at once."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends with its peer
            process.kill()


MEASURES: Final = tuple(
    Measure(name, what, {OURS: run}, slots=SLOTS, rivals=True)
    for name, what, run in (
        ("recovery_worker", "40 tasks of 0.5 s, a worker killed at 3.2 s", lose_worker),
        ("recovery_centre", "the same, who leads or schedules killed", lose_leader),
    )
)

"""How long a death is felt: kill -9 of the leader, and of the owner of running tasks."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.cluster import Cluster
from bench.leader_loss import Losses, busy_cores
from bench.registry import OURS, Found, Measure, Stage
from bench.stats import at
from p2psched import Client
from p2psched.model.peer_messages import PeerView
from p2psched.model.taskset import TaskSet

BUSY: Final = 2
OWNERS: Final = 12  # that are killed, at least
SHARE: Final = 4  # leaders are killed so many times more often idle than busy, or stopped
# Says who runs it, then lasts longer than anybody measures.
_TASK = 'echo "$P2P_PEER" >> "$1/starts-$P2P_INDEX"; exec sleep 600'


async def leader_kill(stage: Stage) -> Found:
    """A client that is connected, and waits; each leader is killed once the cluster is whole."""
    return await _kill_leaders(stage.cluster, stage.kills)


async def leader_kill_busy(stage: Stage) -> Found:
    """The same, and no core is idle: two processes compute, beside all that the peers do."""
    with busy_cores(BUSY):
        return await _kill_leaders(stage.cluster, max(1, stage.kills // SHARE))


async def _kill_leaders(cluster: Cluster, count: int) -> Found:
    await cluster.wait_whole(len(cluster.processes))
    async with Losses(cluster) as losses:
        waits_s = [await losses.kill() for _ in range(count)]
    return {
        "s": waits_s,
        "p50_s": at(waits_s, 0.5),
        "p99_s": at(waits_s, 0.99),
        "max_s": max(waits_s),
    }


async def leader_stop(stage: Stage) -> Found:
    """A client that submits one job after another, while leaders stop by SIGTERM."""
    cluster = stage.cluster
    await cluster.wait_whole(len(cluster.processes))
    async with Losses(cluster) as losses:
        gaps_ms = [await losses.stop() for _ in range(max(1, stage.kills // SHARE))]
    return {
        "ms": gaps_ms,
        "p50_ms": at(gaps_ms, 0.5),
        "max_ms": max(gaps_ms),
    }


async def owner_kill(stage: Stage) -> Found:
    """Seconds from kill -9 of a peer to the moment when all that it ran runs elsewhere (L2)."""
    waits_s = [await _kill_owner(stage.cluster) for _ in range(max(OWNERS, stage.kills // SHARE))]
    return {
        "s": waits_s,
        "p50_s": at(waits_s, 0.5),
        "p99_s": at(waits_s, 0.99),
        "max_s": max(waits_s),
    }


async def _kill_owner(cluster: Cluster) -> float:
    await cluster.wait_whole(3)
    async with cluster.client() as looking:
        peers = await looking.peers()
    victim = next(p for p in peers if p.role == "voter" and p.info.slots)
    survivor = next(n for n, p in enumerate(cluster.processes) if p.pid != victim.info.pid)
    with tempfile.TemporaryDirectory(dir=cluster.folder) as side:
        async with cluster.client(survivor) as client:
            took_s = await _owner_kill(cluster, client, victim, Path(side))
    await cluster.wait_whole(3)
    return took_s


async def _owner_kill(cluster: Cluster, client: Client, victim: PeerView, side: Path) -> float:
    # One task for each slot but one peer's: the survivors have room for those of the victim.
    argv = ["sh", "-c", _TASK, "task", str(side)]
    job = await client.submit_program(argv, tasks=TaskSet.of(0, 3))
    while len(_starts(side)) < 3:  # noqa: ASYNC110 (other processes write these files)
        await asyncio.sleep(0.01)
    lost = [index for index, who in _starts(side).items() if who == [victim.info.name]]
    started = time.perf_counter()
    number = cluster.kill(victim.info.pid)
    while any(len(_starts(side)[index]) < 2 for index in lost):  # noqa: ASYNC110 (as above)
        await asyncio.sleep(0.005)
    took = time.perf_counter() - started
    await job.cancel()
    cluster.restart(number)
    return took


def _starts(side: Path) -> dict[int, list[str]]:
    return {int(p.name.rpartition("-")[2]): p.read_text().split() for p in side.glob("starts-*")}


MEASURES: Final = (
    *(
        Measure(name, what, {OURS: run}, slots=(3, 3, 3), repeat_max=1)
        for name, what, run in (
            ("leader_killed_idle", "kill -9 of leaders until the next submit", leader_kill),
            ("leader_killed_busy", "the same with both cores saturated", leader_kill_busy),
            ("leader_stopped", "longest wait for a submit while leaders stop", leader_stop),
        )
    ),
    Measure(
        "owner_killed",
        "kill -9 of an owner until its tasks run again",
        {OURS: owner_kill},
        slots=(3, 3, 3),
        repeat_max=1,
    ),
)

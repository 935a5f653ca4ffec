"""How long a death is felt: kill -9 of the leader, and of the owner of running tasks."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.cluster import Cluster
from bench.registry import OURS, Measure, Stage
from p2psched import Client
from p2psched.model.messages import PeerView
from p2psched.model.taskset import TaskSet

# Says who runs it, then lasts longer than anybody measures.
_TASK = 'echo "$P2P_PEER" >> "$1/starts-$P2P_INDEX"; exec sleep 600'


async def leader_kill(stage: Stage) -> Mapping[str, float]:
    """Seconds from kill -9 of the leader to the next accepted submit, by a client of a survivor."""
    cluster = stage.cluster
    await cluster.wait_whole(3)
    async with cluster.client() as looking:
        leader = _leader(await looking.peers())
    survivor = next(n for n, p in enumerate(cluster.processes) if p.pid != leader.info.pid)
    async with cluster.client(survivor) as client:
        await client.status()
        started = time.perf_counter()
        number = cluster.kill(leader.info.pid)
        await client.map("bench.work:work", [1])
        took_s = time.perf_counter() - started
    cluster.restart(number)
    await cluster.wait_whole(3)
    return {"s": took_s}


async def owner_kill(stage: Stage) -> Mapping[str, float]:
    """Seconds from kill -9 of a peer to the moment when all that it ran runs elsewhere."""
    cluster = stage.cluster
    await cluster.wait_whole(3)
    async with cluster.client() as looking:
        peers = await looking.peers()
    victim = next(p for p in peers if p.role == "voter" and p.info.slots)
    survivor = next(n for n, p in enumerate(cluster.processes) if p.pid != victim.info.pid)
    with tempfile.TemporaryDirectory(dir=cluster.folder) as side:
        async with cluster.client(survivor) as client:
            took_s = await _owner_kill(cluster, client, victim, Path(side))
    await cluster.wait_whole(3)
    return {"s": took_s}


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


def _leader(peers: list[PeerView]) -> PeerView:
    return next(peer for peer in peers if peer.role == "leader")


MEASURES: Final = tuple(
    Measure(name, what, {OURS: run}, slots=(3, 3, 3), times=2)
    for name, what, run in (
        ("leader_killed", "kill -9 of the leader until the next submit", leader_kill),
        ("owner_killed", "kill -9 of an owner until its tasks run again", owner_kill),
    )
)

"""A peer with a small disk among others: what finds no space there is made elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.model.commands import Recorded, Retried
from p2psched.model.job import Cause, JobState
from p2psched.model.limits import MIB
from tests.cluster import LiveCluster
from tests.integration.work import noise
from tests.small_disk import small_disk

pytestmark = pytest.mark.process

DISK: Final = 40 * MIB
RESULT: Final = 6 * MIB
COUNT: Final = 16


async def spaceless(client: Client, job: Job) -> list[str]:
    """Names of the peers on which a task found no space, one for each event; the history must say
    that all results were made on others afterwards."""
    names = {view.info.peer: view.info.name for view in await client.peers()}
    found: list[str] = []
    made = 0
    for stamped in (await job.history()).events:
        match stamped.event:
            case Retried(peer=peer, segment=segment) if segment.cause is Cause.NO_SPACE:
                found.append(names[peer])
            case Recorded(segment=segment):
                assert segment.cause is Cause.OK
                made += len(segment.tasks)
    assert made == COUNT
    return found


def test_large_results_go_elsewhere_when_one_disk_is_full(tmp_path: Path) -> None:
    async def story(cluster: LiveCluster) -> None:
        async with cluster.client("a") as client:
            job = await client.map(noise, range(COUNT), [RESULT] * COUNT, copies=1)
            view = await job.wait()
            assert view.state is JobState.SUCCEEDED
            for index, value in enumerate(await job.results()):
                assert value == noise(index, RESULT)
            assert set(await spaceless(client, job)) == {"small"}

    with small_disk(tmp_path / "small", DISK) as disk, LiveCluster(tmp_path) as cluster:
        cluster.start("a", slots=1)
        cluster.start("b", slots=1)
        cluster.start("small", slots=2)
        disk.fill(leave=RESULT // 2)
        asyncio.run(story(cluster))
        assert cluster.peers["small"].process.poll() is None

"""A task that kills its peer, for real: in the end it has failed, and what ran beside it not."""

from __future__ import annotations

import asyncio

import pytest

from p2psched.client.client import Client, Job
from p2psched.core.jobs import SUSPECT_DEATHS
from p2psched.core.poison import POISON_DEATHS
from p2psched.model.commands import Recorded
from p2psched.model.job import Cause, JobState
from tests.integration import work
from tests.integration.rig import NAMES, PATIENCE_S, Rig

pytestmark = pytest.mark.process

TASKS = 12
BAD = 5
ENDS_WITHIN_S = 4 * PATIENCE_S  # five peers die one after the other, each missed for 2.5 s


async def restart(rig: Rig, died: list[str]) -> None:
    """Whatever peer ends is started again at once; its name is noted."""
    while True:
        for name, peer in rig.cluster.peers.items():
            if not peer.runs:
                died.append(name)
                rig.cluster.restart(name)
        await asyncio.sleep(0.02)


def test_a_task_that_kills_its_peers_fails_and_those_beside_it_succeed(rig: Rig) -> None:
    async def story() -> None:
        died: list[str] = []
        async with rig.client() as client, asyncio.TaskGroup() as group:
            restarts = group.create_task(restart(rig, died))
            job = await submit(client)
            async with asyncio.timeout(ENDS_WITHIN_S):
                view = await job.wait()
            restarts.cancel()
            assert (view.state, view.succeeded, view.failed) == (JobState.FAILED, TASKS - 1, 1)
            results = {result.index: result async for result in job.as_completed()}
            assert POISON_DEATHS <= len(died) <= SUSPECT_DEATHS + POISON_DEATHS
            assert results.pop(BAD).cause is Cause.PEER_LOST
            assert {index: result.value for index, result in results.items()} == {
                index: index for index in range(TASKS) if index != BAD
            }
            await told_in_history(job, died)

    asyncio.run(story())
    asyncio.run(rig.heal())


async def submit(client: Client) -> Job:
    return await client.map(work.kill_peer, range(TASKS), [BAD] * TASKS)


async def told_in_history(job: Job, died: list[str]) -> None:
    blamed = [
        event.segment.tasks
        for event in (stamped.event for stamped in (await job.history()).events)
        if isinstance(event, Recorded) and event.segment.cause is Cause.PEER_LOST
    ]
    assert [list(tasks) for tasks in blamed] == [[BAD]]
    async for result in job.as_completed():
        if result.index == BAD:
            said = str(result.error)
            assert "died 3 times while it ran nothing else" in said, said
            assert all(name in said for name in died[-POISON_DEATHS:]), said
            assert set(died) <= set(NAMES)

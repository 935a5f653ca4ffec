"""Tasks that run on several peers, on real ones: a side file counts the starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched.client.client import Client, Job
from p2psched.model.backing import BackedUp, Promoted
from p2psched.model.job import JobState
from tests.cluster import LiveCluster
from tests.integration.rig import Rig, Side, Start, gone, tasks, until

pytestmark = pytest.mark.process

VOTERS = ("a", "b", "c")


async def owner_of(job: Job, client: Client) -> str:
    """The name of who owns its only task."""
    ((peer, _),) = (await job.show()).owners
    return next(view.info.name for view in await client.peers() if view.info.peer == peer)


async def said(job: Job) -> str:
    (result,) = [result async for result in job.as_completed()]
    return result.stdout.decode()


async def both_run(client: Client, side: Side) -> tuple[Job, Start, Start]:
    """A task on two peers: its owner's start, and its backup's."""
    job = await client.submit_program(side.argv, tasks=tasks(1), replicas=2)
    await until(lambda: len(side.starts()) == 2)
    owner = await owner_of(job, client)
    (mine,) = side.on(owner)
    (other,) = [start for start in side.starts() if start.peer != owner]
    return job, mine, other


@pytest.mark.smoke
def test_the_first_end_counts_and_the_others_process_is_ended(rig: Rig) -> None:
    side = rig.side("replicas-first")

    async def story() -> None:
        async with rig.client() as client:
            job, owner, backup = await both_run(client, side)
            view = (await job.show()).backups
            assert (view.replicas, view.tasks, [number for _, number in view.at]) == (2, 1, [1])
            side.let_go(0, backup.peer)
            ended = await job.wait()
            assert (ended.state, ended.backups.won) == (JobState.SUCCEEDED, 1)
            await until(lambda: gone(owner.pid))
            assert await said(job) == f"done by {backup.peer}\n"
            assert len(side.starts()) == 2
        assert await rig.agree()

    asyncio.run(story())


def test_a_killed_owner_is_followed_by_its_backup_and_that_by_another(rig: Rig) -> None:
    side = rig.side("replicas-killed")

    async def story() -> None:
        async with rig.client(await rig.leader()) as client:
            job, owner, backup = await both_run(client, side)
        rig.cluster.kill(owner.peer)
        async with rig.client(backup.peer) as client:
            job = await client.job(job.id)

            async def is_replaced() -> bool:
                return (await job.show()).backups.tasks == 1 and len(side.starts()) == 3

            await until(is_replaced)
            assert await owner_of(job, client) == backup.peer
            side.let_go(0, backup.peer)
            view = await job.wait()
            assert (view.state, view.attempts_lost) == (JobState.SUCCEEDED, 1)
            events = [each.event for each in (await job.history()).events]
            (left,) = [event for event in events if isinstance(event, Promoted)]
            assert left.grant == backup.grant
            assert len([event for event in events if isinstance(event, BackedUp)]) == 2
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


# --- followers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Three voters that run nothing, and two followers that do."""
    with LiveCluster(tmp_path_factory.mktemp("replicas")) as cluster:
        for name in VOTERS:
            cluster.start(name, slots=0)
        for name in ("f", "g"):
            cluster.start(name, slots=2, options=["--follow"])
        yield cluster


def test_a_followers_backup_ends_what_a_killed_follower_began(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    """No other peer could begin it anew: two starts are all there are."""
    side = Side(tmp_path)

    async def story() -> None:
        async with cluster.client("a") as client:
            job, owner, backup = await both_run(client, side)
            cluster.kill(owner.peer)

            async def is_left() -> bool:
                view = await job.show()
                return view.attempts_lost == 1 and await owner_of(job, client) == backup.peer

            await until(is_left)
            assert "one of them can run" in (await job.show()).backups.short
            side.let_go()
            view = await job.wait()
            assert (view.state, view.attempts_lost) == (JobState.SUCCEEDED, 1)
            assert sorted(start.peer for start in side.starts()) == ["f", "g"]
            assert await said(job) == f"done by {backup.peer}\n"
        cluster.restart(owner.peer)

    asyncio.run(story())


# The last of eight hangs, where it begins first.
_HANGS_ONCE = """
echo "$P2P_INDEX $P2P_PEER $P2P_FENCE $$" >> "$1/starts"
if [ "$P2P_INDEX" = 7 ] && mkdir "$1/first" 2>/dev/null; then
  while [ ! -e "$1/go" ]; do sleep 0.05; done
fi
echo "done by $P2P_PEER"
"""


def test_a_task_that_hangs_is_begun_elsewhere_once_its_like_have_ended(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    side = Side(tmp_path)

    async def story() -> None:
        async with cluster.client("a") as client:
            argv = ["sh", "-c", _HANGS_ONCE, "task", str(side.folder)]
            job = await client.submit_program(argv, tasks=tasks(8), speculate=True)
            view = await job.wait()
            assert (view.state, view.backups.won) == (JobState.SUCCEEDED, 1)
            late = [start for start in side.starts() if start.index == 7]
            assert [start.peer for start in late] in (["f", "g"], ["g", "f"])
            await until(lambda: gone(late[0].pid))
            assert len(side.starts()) == 9
            told = [step.event for step in await job.story(7)][1:-1]
            assert told == ["granted", "backed up", "granted", "taken away", "ended"]

    asyncio.run(story())

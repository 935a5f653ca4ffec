"""Tasks that hold locks, on real peers: how many run at a time, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.judge import judge_history
from p2psched import Hold
from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.model.job import JobState
from tests.cluster import LiveCluster, wait_until
from tests.integration import work
from tests.integration.rig import until

pytestmark = pytest.mark.process

VOTERS = ("a", "b", "c")
SUBMITTERS, EACH = 3, 167  # 500 tasks and one


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Three voters that run nothing, and two peers that do."""
    with LiveCluster(tmp_path_factory.mktemp("holding")) as cluster:
        for name in VOTERS:
            cluster.start(name, slots=0)
        for name in ("f", "g"):
            cluster.start(name, slots=2, options=["--follow"])
        yield cluster


def lines_of(path: Path) -> list[tuple[str, int, int]]:
    """What tasks said, in the order in which they said it: began or ended, number, fence."""
    words = [line.split() for line in path.read_text().splitlines()]
    return [(sign, int(number), int(fence)) for sign, number, fence in words]


def most_at_once(path: Path) -> int:
    running = most = 0
    for sign, _, _ in lines_of(path):
        running += 1 if sign == "+" else -1
        most = max(most, running)
    return most


async def held(client: Client, path: Path, count: int, hold: Hold) -> Job:
    return await client.map(work.witness, [str(path)] * count, range(count), hold=hold)


def test_a_lock_is_held_by_one_task_of_all_jobs_and_peers(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    side = tmp_path / "side"

    async def story() -> None:
        async with cluster.client("f") as one, cluster.client("a") as other:
            jobs = [await held(client, side, 20, Hold("db")) for client in (one, other)]
            for job in jobs:
                await job.results()
                await judge_history(job)

    asyncio.run(story())
    assert most_at_once(side) == 1
    fences = [fence for sign, _, fence in lines_of(side) if sign == "+"]
    assert fences == sorted(set(fences)), "each holder has a higher token than all before it"


@pytest.mark.smoke
def test_a_counted_resource_is_held_by_no_more_tasks_than_there_are_of_it(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    side = tmp_path / "side"

    async def story() -> None:
        async with cluster.client("a") as client:
            jobs = [await held(client, side, 40, Hold("license", 3)) for _ in range(2)]
            for job in jobs:
                await job.results()

    asyncio.run(story())
    assert 2 <= most_at_once(side) <= 3


def test_a_lock_of_a_client_keeps_tasks_waiting_and_they_say_for_whom(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    async def story() -> None:
        async with cluster.client("a") as client:
            async with client.lock("shared", ttl="30s") as lock:
                token = lock.token
                job = await held(client, tmp_path / "side", 3, Hold("shared"))
                view = await job.show()
                assert "waits for lock shared, held by" in view.note
                assert (view.state, view.owned) == (JobState.RUNNING, 0)
            fences = [int(str(fence)) for fence in await job.results()]
            assert token < min(fences)
            async with client.lock("shared", ttl="30s") as later:
                assert later.token > max(fences)

    asyncio.run(story())


def test_what_a_killed_peer_held_goes_on_elsewhere(cluster: LiveCluster, tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster.client("a") as client:
            script = f"echo $P2P_PEER >> {tmp_path}/on; test -e {tmp_path}/go || sleep 60"
            argv = ["sh", "-c", script]
            job = await client.submit_program(argv, hold=Hold("only"))
            await asyncio.to_thread(wait_until, (tmp_path / "on").exists, "a start")
            victim = (tmp_path / "on").read_text().strip()
            later = await held(client, tmp_path / "side", 1, Hold("only"))
            (tmp_path / "go").touch()
            cluster.kill(victim)
            await later.results()
            await job.wait()
            names = (tmp_path / "on").read_text().split()
            assert names[-1] != victim
        await asyncio.to_thread(cluster.restart, victim)

    asyncio.run(story())


def test_an_ordered_queue_of_three_submitters_runs_in_commit_order_over_two_failovers(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    side = tmp_path / "side"
    side.touch()

    async def submitter(client: Client, number: int) -> None:
        for task in range(EACH):
            args = [str(side)], [number * EACH + task]
            await client.map(work.witness, *args, name="turn", hold=Hold("q", in_order=True))

    async def leader() -> str:
        async with cluster.client("f") as client:
            views = await client.peers()
        return next(view.info.name for view in views if view.role == "leader")

    async def fail_over(after: int) -> None:
        await until(lambda: len(lines_of(side)) >= 2 * after, within_s=60)
        victim = await leader()
        cluster.kill(victim)
        await asyncio.to_thread(cluster.restart, victim)

    async def story() -> list[int]:
        async with (
            cluster.client("f") as one,
            cluster.client("g") as two,
            cluster.client("f") as three,
        ):
            async with asyncio.TaskGroup() as group:
                for number, client in enumerate((one, two, three)):
                    group.create_task(submitter(client, number))
                for after in (100, 300):
                    await fail_over(after)
            views = [v for v in await one.jobs(limit=1_000) if v.name == "turn"]
            views.reverse()  # the oldest first: in the order in which they were committed
            assert len(views) == SUBMITTERS * EACH
            await Job(one.session, views[-1].job).wait()
            order = []
            for view in views:
                job = Job(one.session, view.job)
                (fence,) = await job.results()
                order.append(int(str(fence)))
            return order

    order = asyncio.run(story())
    assert order == sorted(order)
    began = [fence for sign, _, fence in lines_of(side) if sign == "+"]
    assert [fence for fence in dict.fromkeys(began) if fence in set(order)] == order
    assert most_at_once(side) == 1

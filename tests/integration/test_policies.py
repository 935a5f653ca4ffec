"""Jobs that choose their peers and their policy, on real peers; and why, told by any of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from p2psched import Needs, task
from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.model.errors import Refused, UsageError
from p2psched.model.explain_messages import Explained, ExplainTask
from p2psched.observe.clock import BootClock
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.rig import until

pytestmark = pytest.mark.process

OWN = """
NAME = "mine"
SUMMARY = "peers without a label first"
LATE = False

def score(ask, peer):
    return peer.owned
"""
OPTIONS = {
    "a": ["--memory", "500M"],
    "b": ["--label", "arch=arm", "--gpus", "1", "--memory", "500M"],
    "f": ["--follow", "--label", "arch=arm", "--gpus", "2", "--memory", "2G"],
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Two that hold the ledger, and a follower. Both know a policy of somebody's own."""
    folder = tmp_path_factory.mktemp("policies")
    policy = folder / "mine.py"
    policy.write_text(OWN, encoding="utf-8")
    with LiveCluster(folder) as cluster:
        for name, options in OPTIONS.items():
            cluster.start(name, slots=2, options=[*options, "--policy-file", str(policy)])
        yield cluster


async def program(
    client: Client, count: int = 1, needs: Needs | None = None, policy: str = ""
) -> Job:
    from p2psched.model.taskset import TaskSet  # noqa: PLC0415

    return await client.submit_program(
        ["true"], tasks=TaskSet.of(0, count), needs=needs, policy=policy
    )


async def where(client: Client, job: Job) -> Counter[str]:
    """How many tasks each peer has finished, by name."""
    await job.results()
    names = {peer.info.peer: peer.info.name for peer in await client.peers()}
    view = await job.show()
    return Counter({names[peer]: count for peer, count in view.finished_by})


@pytest.mark.smoke
def test_tasks_run_where_what_they_need_is_also_on_a_follower(cluster: LiveCluster) -> None:
    async def story() -> None:
        async with cluster.client("a") as client:
            needs = Needs(require=(("arch", "arm"),), gpus=2)
            async with asyncio.timeout(20):  # until the follower has said what it has
                while True:
                    try:
                        job = await program(client, 4, needs)
                    except Refused:
                        await asyncio.sleep(0.05)
                    else:
                        break
            assert await where(client, job) == {"f": 4}
            one = await program(client, 6, Needs(require=(("name", "b"),), gpus=1))
            assert await where(client, one) == {"b": 6}

    asyncio.run(story())


def test_a_task_brings_its_needs_and_its_policy(cluster: LiveCluster) -> None:
    needs = Needs(require=(("name", "b"),))
    wanted = task(needs=needs, policy="round-robin")(work.square)

    async def story() -> None:
        async with cluster.client("a") as client:
            single = client.submit(wanted, 3)
            assert await single == 9
            assert await where(client, single.job) == {"b": 1}
            job = await client.map(wanted, range(4))
            assert await where(client, job) == {"b": 4}

    asyncio.run(story())


def test_what_nobody_can_run_is_refused_with_the_nearest_miss(cluster: LiveCluster) -> None:
    async def story() -> None:
        async with cluster.client("f") as client:
            with pytest.raises(Refused, match="nearest is f, which has 2 of 3 GPUs"):
                await program(client, 1, Needs(gpus=3))
            with pytest.raises(UsageError, match="no policy 'nope'"):
                await program(client, 1, policy="nope")

    asyncio.run(story())


def test_any_peer_explains_a_placement_by_a_policy_of_ones_own(cluster: LiveCluster) -> None:
    clock = BootClock()

    async def story() -> None:
        async with cluster.client("a") as client:
            before_ms = clock.wall_ms()
            job = await program(client, 6, policy="mine")
            assert (await where(client, job)).total() == 6
        for name in ("a", "b", "f"):
            async with cluster.client(name) as client:
                told = await client.session.call(ExplainTask(job.id, 4), Explained)
                (decision,) = [d for d in told.decisions if d.kind == "placed"]
                assert (told.state, decision.policy, decision.note) == ("succeeded", "mine", "")
                assert len(decision.considered) == 3
                assert 4 in decision.tasks
                assert not told.silent
                # As of its last look at the others.
                assert before_ms - 1_000 <= decision.wall_ms <= clock.wall_ms() + 1

    asyncio.run(story())


def test_a_job_that_fits_only_a_peer_that_is_down_says_so_and_runs_when_it_is_back(
    cluster: LiveCluster,
) -> None:
    async def story() -> None:
        async with cluster.client("a") as client:
            cluster.kill("f")
            await until(lambda: _is_down(client, "f"), within_s=20)
            job = await program(client, 1, Needs(memory_mib=1_500))
            view = await job.show()
            assert view.note == "fits only on f, which is down"
            told = await client.session.call(ExplainTask(job.id, 0), Explained)
            assert (told.state, told.waits, told.decisions) == ("waiting", view.note, ())
            await asyncio.to_thread(cluster.start, "f", slots=2, options=OPTIONS["f"])
            async with asyncio.timeout(20):
                assert await where(client, job) == {"f": 1}

    asyncio.run(story())


async def _is_down(client: Client, name: str) -> bool:
    return any(p.info.name == name and p.state == "dead" for p in await client.peers())

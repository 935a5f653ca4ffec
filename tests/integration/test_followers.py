"""Peers that hold no ledger, as real processes: they run, answer, and outlive whom they follow."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.judge import judge_history
from p2psched.client.client import Client
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError
from p2psched.model.job import JobState
from p2psched.model.status_messages import StatusAnswer
from p2psched.peer import lives
from p2psched.peer.lives import Lives
from tests.cluster import LiveCluster, wait_until
from tests.integration import work
from tests.integration.rig import Side, gone, tasks, until

pytestmark = pytest.mark.process

VOTERS = ("a", "b", "c")
RUN_ELSEWHERE_S = 8.0  # L2
LARGE = 3 * 1024 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Three voters that run nothing, and two followers that do."""
    with LiveCluster(tmp_path_factory.mktemp("followers")) as cluster:
        for name in VOTERS:
            cluster.start(name, slots=0)
        for name in ("f", "g"):
            cluster.start(name, slots=2, options=["--follow"])
        yield cluster


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side(tmp_path)


async def status(cluster: LiveCluster, name: str) -> StatusAnswer:
    async with cluster.client(name) as client:
        return await client.status()


async def roles(client: Client) -> dict[str, str]:
    return {view.info.name: view.role for view in await client.peers() if view.state == "alive"}


async def feeder_of(cluster: LiveCluster, name: str) -> str:
    found = (await status(cluster, name)).feeder
    return next(peer.name for peer in cluster.peers.values() if peer.id == found)


async def heal(cluster: LiveCluster) -> None:
    """All run, and the followers are fed."""
    for name, peer in cluster.peers.items():
        if peer.process.poll() is not None:
            cluster.restart_nowait(name)
            await asyncio.to_thread(cluster.wait_ready, peer)

    async def healed() -> bool:
        try:
            async with cluster.client("f") as client:
                found = sorted((await roles(client)).values())
        except P2PSchedError:
            return False
        return found == ["follower", "follower", "leader", "voter", "voter"]

    await until(healed)


@pytest.mark.smoke
def test_a_follower_answers_and_runs_without_a_ledger(cluster: LiveCluster) -> None:
    async def story() -> None:
        await heal(cluster)
        async with cluster.client("f") as client:
            job = await client.map(work.square, range(200))
            assert await job.results() == [number * number for number in range(200)]
            view = await job.show()
            assert view.state is JobState.SUCCEEDED
            assert {peer for peer, _ in view.finished_by} <= {
                cluster.peers["f"].id,
                cluster.peers["g"].id,
            }
            await judge_history(job)
            large = await client.map(work.noise, [1, 2], [LARGE, LARGE])
            assert await large.results() == [work.noise(seed, LARGE) for seed in (1, 2)]
        said = await status(cluster, "f")
        assert (said.role, said.log_bytes, said.quorum) == ("follower", 0, True)
        assert await feeder_of(cluster, "f") != await leader_of(cluster)

    asyncio.run(story())
    assert not list((cluster.peers["f"].data / "ledger").iterdir())
    assert not (cluster.peers["f"].data / "results.db").exists()


async def leader_of(cluster: LiveCluster) -> str:
    async with cluster.client("f") as client:
        return next(name for name, role in (await roles(client)).items() if role == "leader")


@pytest.mark.parametrize("whom", ["feeder", "leader"])
def test_work_goes_on_under_its_grant_when_a_holder_of_the_ledger_dies(
    cluster: LiveCluster, side: Side, whom: str
) -> None:
    async def story() -> None:
        await heal(cluster)
        async with cluster.client("f") as client:
            job = await client.submit_program(side.argv, tasks=tasks(4))
            await until(lambda: len(side.starts()) == 4)
            victim = await (feeder_of(cluster, "f") if whom == "feeder" else leader_of(cluster))
            cluster.kill(victim)

            async def fed_by_another() -> bool:
                said = await status(cluster, "f")
                return said.quorum and said.feeder != cluster.peers[victim].id

            await until(fed_by_another)
            side.let_go()
            assert (await job.wait()).succeeded == 4
            assert len(side.starts()) == 4, "a task began twice"
            more = await client.map(work.square, range(20))
            assert await more.results() == [number * number for number in range(20)]
            await judge_history(job)

    asyncio.run(story())


def test_the_tasks_of_a_killed_follower_run_elsewhere(cluster: LiveCluster, side: Side) -> None:
    async def story() -> None:
        await heal(cluster)
        async with cluster.client("g") as client:
            job = await client.submit_program(side.argv, tasks=tasks(4))
            await until(lambda: len(side.on("f")) == 2 and len(side.on("g")) == 2)
            cluster.kill("f")
            side.let_go(peer="g", index=side.on("g")[0].index)
            side.let_go(peer="g", index=side.on("g")[1].index)
            lost = {start.index for start in side.on("f")}

            def elsewhere() -> bool:
                return lost <= {start.index for start in side.on("g")}

            await until(elsewhere, within_s=RUN_ELSEWHERE_S)
            side.let_go()
            assert (await job.wait()).succeeded == 4
            await judge_history(job)
        await heal(cluster)
        assert (await status(cluster, "f")).role == "follower"

    asyncio.run(story())


@pytest.mark.smoke
def test_a_follower_that_stops_gives_its_tasks_back_at_once(
    cluster: LiveCluster, side: Side
) -> None:
    async def story() -> None:
        await heal(cluster)
        async with cluster.client("g") as client:
            job = await client.submit_program(side.argv, tasks=tasks(2))
            await until(lambda: len(side.starts()) == 2)
            assert await asyncio.to_thread(cluster.stop, "f") == 0
            side.let_go()
            assert (await job.wait()).succeeded == 2
            assert (await job.show()).attempts_lost == len(side.on("f"))

    asyncio.run(story())


def test_cancelled_work_ends_on_a_follower(cluster: LiveCluster, side: Side) -> None:
    async def story() -> None:
        await heal(cluster)
        async with cluster.client("a") as client:
            job = await client.submit_program(side.argv, tasks=tasks(4))
            await until(lambda: len(side.starts()) == 4)
            await job.cancel()
            await until(lambda: all(gone(start.pid) for start in side.starts()), within_s=5)
            assert (await job.show()).state is JobState.CANCELLED

    asyncio.run(story())


def test_what_a_follower_has_run_is_told_by_every_peer(cluster: LiveCluster) -> None:
    asyncio.run(heal(cluster))
    script = "seq 20000; test $P2P_ATTEMPT = 2"
    options = ("--retries", "1", "--name", "printed", "--wait", "-o", "quiet")
    cluster.ok("submit-job", *options, "--", "sh", "-c", script)
    whole = "".join(f"{number}\n" for number in range(1, 20_001))  # more than a result brings
    for peer in cluster.peers.values():
        for attempt in ("1", "2"):
            words = ("printed/0", "--attempt", attempt, "--peer", peer.address)
            assert cluster.ok("job", "logs", *words) == whole


def test_a_drained_follower_runs_nothing_until_it_is_taken_back(
    cluster: LiveCluster, side: Side
) -> None:
    async def story() -> None:
        await heal(cluster)
        async with cluster.client("f") as client:
            await asyncio.to_thread(cluster.ok, "peer", "drain", "f")
            job = await client.submit_program(side.argv, tasks=tasks(4))
            await until(lambda: len(side.on("g")) == 2)
            view = next(view for view in await client.peers() if view.info.name == "f")
            assert (view.drain, view.owned) == ("drained", 0)
            said = await status(cluster, "f")
            assert (said.drain, said.level) == ("draining", KNOWN_LEVEL)
            await asyncio.to_thread(cluster.ok, "peer", "drain", "f", "--undo")
            await until(lambda: len(side.on("f")) == 2)
            side.let_go()
            assert (await job.wait()).succeeded == 4

    asyncio.run(story())


def test_a_follower_passes_on_what_it_does_not_know(cluster: LiveCluster) -> None:
    asyncio.run(heal(cluster))
    through = ("--peer", cluster.peers["f"].address)
    assert "stale: as of entry" in cluster.run("jobs", "--stale", *through).stderr
    assert cluster.run("peers", "--at", "5", *through).returncode == 0
    told = cluster.ok("events", "export", "--from", "1", "--kind", "peer.up", *through)
    assert len(told.splitlines()) >= 5
    said = cluster.ok("status", *through)
    assert "none on this disk" in said
    assert "followed" in said
    assert "heartbeat" not in said  # it leads nobody and elects nobody
    refused = cluster.run("peer", "promote", "f", *through)
    assert refused.returncode != 0
    assert "--no-follow" in refused.stderr


def test_a_follower_that_is_removed_ends_and_says_how_to_come_back(tmp_path: Path) -> None:
    with LiveCluster(tmp_path) as cluster:
        cluster.start("a", slots=1)
        removed = cluster.start("f", slots=1, options=["--follow"])
        wait_until(lambda: cluster.run("peer", "remove", "f").returncode == 0, "the level")
        wait_until(lambda: removed.process.poll() is not None, "its end")
        assert "was removed from its cluster" in removed.log
        cluster.restart_nowait("f")
        wait_until(lambda: cluster.peers["f"].process.poll() is not None, "its end")
        cluster.peers["f"].options = ("--slots", "1", "--follow", "--anew")
        cluster.restart("f")
        found = cluster.ok("peers")
        assert "follower" in found


def test_the_sixth_peer_follows_where_three_voters_are_wanted(tmp_path: Path) -> None:
    """Two spares hold the ledger beside them."""
    with LiveCluster(tmp_path) as cluster:
        cluster.start("a", slots=0)
        wait_until(lambda: cluster.run("peer", "voters", "3").returncode == 0, "the level")
        for name in "bcdef":
            cluster.start(name, slots=0)

        async def story() -> None:
            async with cluster.client("f") as client:

                async def settled() -> bool:
                    found = sorted((await roles(client)).values())
                    return found == ["follower", "leader", "learner", "learner", "voter", "voter"]

                await until(settled)

        asyncio.run(story())


def test_a_follower_that_is_wanted_becomes_a_holder_of_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its next start, and while it runs; but not with code of another version."""
    with LiveCluster(tmp_path) as cluster:
        cluster.start("a", slots=1)
        cluster.start("f", slots=1, options=["--follow"])
        assert cluster.stop("f") == 0
        assert not list((cluster.peers["f"].data / "ledger").iterdir())
        cluster.peers["f"].options = ("--slots", "1")
        cluster.restart("f")
        assert list((cluster.peers["f"].data / "ledger").iterdir())
        assert not (cluster.peers["f"].data / "following").exists()

        async def story() -> None:
            ready = asyncio.Event()
            config = Config(
                name="g",
                data=str(tmp_path / "g"),
                listen="127.0.0.1:0",
                slots=1,
                python=sys.executable,
                runtime_dir=str(cluster.runtime_dir),
                join=(cluster.peers["a"].address,),
                follows=True,
                embedded=True,
            )
            peer = Lives(config, on_ready=lambda _: ready.set())
            async with asyncio.TaskGroup() as group, cluster.client("a") as client:
                group.create_task(peer.run())
                await ready.wait()
                assert (await roles(client))["g"] == "follower"
                life = peer._life
                assert life is not None
                with monkeypatch.context() as upgrade:
                    upgrade.setattr(lives, "version_in", lambda _: "99")
                    life._config = msgspec.structs.replace(config, follows=None)

                    async def has_looked() -> bool:
                        return peer._is_other_version

                    await until(has_looked)
                    assert (await roles(client))["g"] == "follower"

                async def is_member() -> bool:
                    return (await roles(client)).get("g") in ("learner", "voter")

                await until(is_member)
                job = await client.map(work.square, range(100))
                assert await job.results() == [number * number for number in range(100)]
                peer.stop()

        asyncio.run(story())

"""A peer with a small disk among others: what finds no space there is made elsewhere."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.client.session import RETRY_S, Session
from p2psched.model.commands import Recorded, Retried
from p2psched.model.errors import NoSpace
from p2psched.model.ids import JobId, new_id
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork
from p2psched.model.limits import KIB, MIB
from p2psched.model.messages import GetStatus, JobAccepted, Submit
from p2psched.model.status_messages import StatusAnswer
from p2psched.model.taskset import TaskSet
from p2psched.store.folder import read_secret_file
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.rig import until
from tests.integration.work import noise
from tests.small_disk import SmallDisk, small_disk

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
        # Without a watch over what is left the tasks meet the full disk themselves.
        cluster.start("small", slots=2, options=["--space-min", "0", "--ballast", "0"])
        disk.fill(leave=RESULT // 2)
        asyncio.run(story(cluster))
        assert cluster.peers["small"].process.poll() is None


class Full:
    """A cluster of three that vote, the first of which has a small disk and leads."""

    def __init__(self, cluster: LiveCluster, disk: SmallDisk) -> None:
        self.cluster = cluster
        self.disk = disk
        self.small = cluster.peers["small"]
        self.pid = self.small.pid

    async def status(self, name: str) -> StatusAnswer:
        async with self.only(name) as session:
            return await session.call(GetStatus(), StatusAnswer)

    def only(self, name: str, patience_s: float = 20.0) -> Session:
        """Asks this peer and no other."""
        peer = self.cluster.peers[name]
        secret = read_secret_file(peer.data / "secret")
        return Session([peer.address], secret=secret, patience_s=patience_s)

    def ask(self, name: str, *words: str) -> str:
        return self.cluster.ok("status", "--peer", self.cluster.peers[name].address, *words)

    def told(self, name: str) -> str:
        """What a person sees of the disk."""
        return next(line for line in self.ask(name).splitlines() if line.startswith("disk "))

    async def wait_role(self, name: str, *roles: str) -> None:
        async def has() -> bool:
            return (await self.status(name)).role in roles

        await until(has)

    async def run_job(self, name: str) -> dict[str, int]:
        """A job through this peer. Which peers brought how many of its results."""
        async with self.cluster.client(name) as client:
            names = {view.info.peer: view.info.name for view in await client.peers()}
            job = await client.map(work.square, range(30))
            view = await job.wait()
            assert view.state is JobState.SUCCEEDED
            return {names[peer]: count for peer, count in view.finished_by}

    def check_alive(self) -> None:
        assert self.small.process.poll() is None, self.small.log
        assert self.small.pid == self.pid


@contextmanager
def running_full(folder: Path, size: int = DISK) -> Iterator[Full]:
    with small_disk(folder / "small", size) as disk, LiveCluster(folder) as cluster:
        cluster.start("small", slots=1)
        cluster.start("a", slots=1)
        cluster.start("b", slots=1)
        full = Full(cluster, disk)

        async def formed() -> None:
            for name in ("a", "b"):
                await full.wait_role(name, "voter")
            await full.wait_role("small", "leader")

        asyncio.run(formed())
        yield full


def test_a_leader_whose_disk_fills_hands_over_and_takes_part_again_when_there_is_space(
    tmp_path: Path,
) -> None:
    async def story(full: Full) -> None:
        full.disk.fill(leave=256 * KIB)
        await full.wait_role("small", "voter")  # it votes, and leads no more
        async with full.only("small", patience_s=RETRY_S) as session:
            spec = JobSpec(name="", tasks=TaskSet.of(0, 1), work=ProgramWork(("true",)))
            with pytest.raises(NoSpace, match="free some there"):
                await session.call(Submit(JobId(new_id(random.Random(1))), spec), JobAccepted)
        assert "takes no jobs, tasks and data" in full.told("small")
        assert "takes no jobs" not in full.told("a")
        assert "small" not in await full.run_job("a")
        async with full.cluster.client("small") as client:  # reads, and what the others did
            assert len(await client.jobs()) == 1
        full.check_alive()
        full.disk.empty()

        async def works_again() -> bool:
            return "small" in await full.run_job("small")

        await until(works_again)
        space = json.loads(full.ask("small", "-o", "json"))["status"]["space"]
        assert (space["room"], space["free_bytes"] >= space["least_bytes"]) == ("enough", True)
        full.check_alive()

    with running_full(tmp_path) as full:
        asyncio.run(story(full))


def test_a_peer_without_a_byte_left_stays_up_misses_nothing_and_catches_up(tmp_path: Path) -> None:
    async def story(full: Full) -> None:
        full.disk.fill()
        await full.wait_role("small", "voter")
        for _ in range(3):  # the ballast may be given back on the way, and is taken too
            assert "small" not in await full.run_job("a")
            full.disk.fill()
        done = (await full.status("a")).applied_index
        status = await full.status("small")  # answered, from whatever it knows
        assert status.applied_index <= done
        full.check_alive()
        full.disk.empty()

        async def same() -> bool:
            mine, others = await full.status("small"), await full.status("a")
            at_one = mine.applied_index == others.applied_index >= done
            return at_one and mine.state_hash == others.state_hash

        await until(same)
        full.check_alive()

        async def works_again() -> bool:
            return "small" in await full.run_job("small")

        await until(works_again)

    with running_full(tmp_path) as full:
        asyncio.run(story(full))


TINY: Final = 16 * MIB
SMALL_RESULT: Final = 40 * KIB  # travels in the ledger, and is kept by every peer


async def load(client: Client, made: list[Job]) -> None:
    """One job more, of a megabyte of results, all of which are there."""
    job = await client.map(noise, range(25), [SMALL_RESULT] * 25)
    made.append(job)
    assert (await job.wait()).state is JobState.SUCCEEDED


async def check_whole(client: Client, jobs: Sequence[Job]) -> None:
    for made in jobs:
        job = await client.job(made.id)
        assert [*await job.results()] == [noise(index, SMALL_RESULT) for index in range(25)]


@pytest.mark.long
def test_a_disk_of_16_mib_that_its_own_peer_fills_costs_nothing_and_is_used_again(
    tmp_path: Path,
) -> None:
    """With all that a peer keeps by default on it: ledger, results, ballast."""

    async def story(full: Full) -> None:
        made: list[Job] = []

        async def is_full() -> bool:
            await load(client, made)
            full.check_alive()
            return (await full.status("a")).role == "leader" or (
                await full.status("b")
            ).role == "leader"

        async with full.cluster.client("a") as client:
            await until(is_full, within_s=120)
            for _ in range(8):  # the others don't notice, though it fills to the last byte
                await load(client, made)
            async with full.only("small", patience_s=RETRY_S) as session:
                spec = JobSpec(name="", tasks=TaskSet.of(0, 1), work=ProgramWork(("true",)))
                with pytest.raises(NoSpace, match="free some there"):
                    await session.call(Submit(JobId(new_id(random.Random(1))), spec), JobAccepted)
            full.check_alive()
            await check_whole(client, made)
        full.disk.grow(8 * TINY)

        async def works_again() -> bool:
            mine, others = await full.status("small"), await full.status("a")
            at_one = mine.applied_index == others.applied_index
            same = at_one and mine.state_hash == others.state_hash
            return same and "small" in await full.run_job("small")

        await until(works_again)
        full.check_alive()
        async with full.cluster.client("small") as client:
            await check_whole(client, made)

    with running_full(tmp_path, TINY) as full:
        asyncio.run(story(full))

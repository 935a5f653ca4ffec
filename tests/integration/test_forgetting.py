"""Forgotten jobs free the disks of all peers; large results count once, whoever dies on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.job import Job
from p2psched.model.commands import Recorded
from p2psched.model.errors import NotFound
from p2psched.model.job import JobState
from p2psched.model.limits import MIB
from p2psched.model.messages import JobView
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.disks import Disks, refs_of, running_disks
from tests.integration.rig import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]

SIZE: Final = 1 * MIB
LARGE: Final = 8 * MIB
JOB_ID: Final = "7" * 32


@pytest.fixture(scope="module")
def _shared_disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    with running_disks(tmp_path_factory.mktemp("disks")) as disks:
        yield disks


@pytest.fixture
def disks(_shared_disks: Disks) -> Disks:
    asyncio.run(_shared_disks.heal())
    return _shared_disks


def test_a_removed_job_frees_all_disks_but_not_of_what_another_refers_to(disks: Disks) -> None:
    async def story() -> None:
        async with disks.client() as client:
            one = await client.map(work.noise, [1, 2], [SIZE] * 2)
            two = await client.map(work.noise, [2, 3], [SIZE] * 2)
            await one.wait()
            await two.wait()
            first, second = await refs_of(one), await refs_of(two)
            assert first[1] == second[0]
            await disks.wait_copied(two)
            disks.cluster.ok("job", "rm", one.id)
            await until(lambda: not disks.holders(first[0]))
            assert await two.results() == [work.noise(2, SIZE), work.noise(3, SIZE)]
            assert len(disks.holders(first[1])) >= 2
            disks.cluster.ok("job", "rm", two.id)
            await until(lambda: not any(map(disks.holders, second.values())))
            with pytest.raises(NotFound, match="forgotten"):
                await two.results()

    asyncio.run(story())


def test_an_owner_that_dies_with_large_results_costs_no_result_and_doubles_none(
    disks: Disks, tmp_path: Path
) -> None:
    side = tmp_path / "side"

    async def story() -> None:
        async with disks.client("a") as client:
            job = await client.map(work.noise_told, [str(side)] * 12, range(12), [LARGE] * 12)
            victim = await _kill_who_hands_over(disks, side)
            view = await job.wait()
            assert (view.state, view.succeeded) == (JobState.SUCCEEDED, 12)
            await _check_each_once(job, view)
            assert await job.results() == [work.noise(n, LARGE) for n in range(12)]
            made = Counter(line.split()[0] for line in side.read_text().splitlines())
            assert sum(made.values()) - 12 <= view.attempts_lost
        assert victim != "a"

    asyncio.run(story())


async def _kill_who_hands_over(disks: Disks, side: Path) -> str:
    """kill -9 of a peer that has a large result of its workers and is not known to have it."""
    names = [name for name in disks.cluster.peers if name != "a"]

    def handing_over() -> str | None:
        folders = {name: disks.cluster.peers[name].data / "run" / "spill" for name in names}
        return next((name for name, folder in folders.items() if any(folder.glob("*"))), None)

    await until(lambda: side.exists() and handing_over() is not None)
    victim = handing_over() or names[0]
    disks.cluster.kill(victim)
    return victim


async def _check_each_once(job: Job, view: JobView) -> None:
    recorded: Counter[int] = Counter()
    for stamped in (await job.history()).events:
        if isinstance(stamped.event, Recorded):
            recorded.update(stamped.event.segment.tasks)
    assert recorded == Counter(view.task_set)


def test_all_killed_while_large_results_are_copied_go_on_and_lose_nothing(disks: Disks) -> None:
    async def story() -> None:
        async with disks.client() as client:
            job = await client.map(work.noise, range(50, 66), [LARGE] * 16)

            async def some_told() -> bool:
                return (await job.show()).succeeded >= 2

            await until(some_told)
        for name in disks.cluster.peers:
            disks.cluster.kill(name)
        await disks.heal()
        async with disks.client() as client:
            job = await client.job(job.id)
            view = await job.wait()
            assert (view.state, view.succeeded) == (JobState.SUCCEEDED, 16)
            assert await job.results() == [work.noise(n, LARGE) for n in range(50, 66)]
            await _check_each_once(job, view)
            await disks.wait_copied(job)

    asyncio.run(story())


@pytest.mark.long
def test_jobs_are_forgotten_when_their_time_is_over_but_not_pinned_ones(
    live: LiveCluster,
) -> None:
    live.start("a", options=["--keep-results", "5s"])

    async def story() -> None:
        async with live.client() as client:
            kept = await client.map(work.noise, [4], [SIZE])
            await kept.pin()
            job = await client.map(work.noise, [5], [SIZE], job_id=JOB_ID)
            await kept.wait()
            await job.wait()
            (ref,) = (await refs_of(job)).values()
            path = live.peers["a"].data / "blobs" / ref.digest.hex()[:2] / ref.digest.hex()
            assert path.exists()

            async def is_forgotten() -> bool:
                return [view.job for view in await client.jobs()] == [kept.id]

            await until(is_forgotten)
            await until(lambda: not path.exists())
            assert await kept.results() == [work.noise(4, SIZE)]
            again = await client.map(work.noise, [5], [SIZE], job_id=JOB_ID)
            with pytest.raises(NotFound, match="forgotten"):
                await again.wait()
            assert [view.job for view in await client.jobs()] == [kept.id]
            assert not path.exists()
            await kept.pin(pinned=False)

            async def none_left() -> bool:
                return not await client.jobs()

            await until(none_left)

    asyncio.run(story())

"""kill -9, of each and of all: nothing accepted is lost, nothing has two results."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bench.judge import judge_history
from p2psched.client.client import Client, Job
from p2psched.client.results import results_of
from p2psched.model.commands import Revoked
from p2psched.model.errors import Unavailable
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState
from p2psched.model.messages import FetchResults, ResultPage
from tests.integration import work
from tests.integration.rig import Rig, Side, Start, tasks, until

pytestmark = pytest.mark.process

RUN_ELSEWHERE_S = 8.0  # after the kill of an owner, its tasks run elsewhere (L2)


@pytest.mark.smoke
def test_no_accepted_job_is_lost_or_doubled_when_the_leader_dies(rig: Rig) -> None:
    """Two clients submit and one long job runs all the while, each through another peer."""
    side = rig.side("leader-dies")

    async def submit(client: Client, accepted: list[Job], stop: asyncio.Event) -> None:
        while not stop.is_set():
            accepted.append(await client.map(work.square, range(10)))

    async def story() -> None:
        leader = await rig.leader()
        follower = await rig.follower()
        stop = asyncio.Event()
        accepted: list[Job] = []
        async with rig.client(leader) as one, rig.client(follower) as two:
            long = await one.submit_program(side.argv, tasks=tasks(4))
            async with asyncio.TaskGroup() as group:
                group.create_task(submit(one, accepted, stop))
                group.create_task(submit(two, accepted, stop))
                await until(lambda: len(accepted) >= 20)
                rig.cluster.kill(leader)
                before = len(accepted)
                await until(lambda: len(accepted) >= before + 20)
                stop.set()
            side.let_go()
            assert (await long.wait()).succeeded == 4
            for job in accepted:
                assert await job.results() == [number * number for number in range(10)]
            for job in (long, *accepted):
                await judge_history(await two.job(job.id))
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_short_jobs_are_neither_lost_nor_doubled_when_the_peer_that_was_asked_dies(
    rig: Rig, victim: str
) -> None:
    """Clients of one peer, each with one task at a time, which one call submits and follows."""

    async def submit(client: Client, number: int, done: list[Job], stop: asyncio.Event) -> None:
        while not stop.is_set():
            task = client.submit(work.square, number)
            assert await task == number * number
            done.append(task.job)

    async def story() -> None:
        name = await (rig.leader() if victim == "leader" else rig.follower())
        stop = asyncio.Event()
        done: list[Job] = []
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(rig.client(name)) for _ in range(8)]
            async with asyncio.TaskGroup() as group:
                for number, client in enumerate(clients):
                    group.create_task(submit(client, number, done, stop))
                await until(lambda: len(done) >= 40)
                rig.cluster.kill(name)
                before = len(done)
                await until(lambda: len(done) >= before + 40)
                stop.set()
            for job in done:
                await judge_history(await clients[0].job(job.id))
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


@pytest.mark.smoke
def test_tasks_of_a_killed_owner_run_elsewhere_under_higher_grants(rig: Rig) -> None:
    side = rig.side("owner-dies")

    async def story() -> None:
        victim = await rig.follower()
        async with rig.client() as client:
            job, lost = await run_on_all(rig, client, side, victim)
            rig.cluster.kill(victim)
            await until(lambda: moved(side, lost), within_s=RUN_ELSEWHERE_S)
            side.let_go()
            view = await job.wait()
            assert (view.state, view.attempts_lost) == (JobState.SUCCEEDED, len(lost))
            assert victim not in {name async for name in _brought_by(job)}
            events = [stamped.event for stamped in (await job.history()).events]
        revoked = [event for event in events if isinstance(event, Revoked)]
        assert {event.cause for event in revoked} == {Cause.PEER_LOST}
        assert sorted(i for event in revoked for i in event.tasks) == [s.index for s in lost]
        for start in lost:
            later = [s.grant for s in side.starts() if s.index == start.index and s != start]
            assert len(later) == 1
            assert later[0] > start.grant

    asyncio.run(story())


async def run_on_all(rig: Rig, client: Client, side: Side, victim: str) -> tuple[Job, list[Start]]:
    """A job of waiting tasks of which only those of `victim` are left; they run there."""
    job = await client.submit_program(side.argv, tasks=tasks(6))
    await until(lambda: len(side.starts()) == 6)
    lost = sorted(side.on(victim), key=lambda start: start.index)
    assert lost, "placement gives every free slot a task"
    for start in side.starts():
        if start.peer != victim:
            side.let_go(start.index, start.peer)

    async def others_ended() -> bool:
        return (await job.show()).succeeded == 6 - len(lost)

    await until(others_ended)
    return job, lost


def moved(side: Side, lost: list[Start]) -> bool:
    """True once each of the lost tasks was started by another peer."""
    victim = lost[0].peer
    again = {start.index for start in side.starts() if start.peer != victim}
    return again >= {start.index for start in lost}


async def _brought_by(job: Job) -> AsyncIterator[str]:
    async for result in job.as_completed():
        yield result.stdout.decode().split()[-1]


def test_all_killed_at_once_go_on_where_they_were(rig: Rig) -> None:
    side = rig.side("all-die")

    async def story() -> None:
        async with rig.client() as client:
            ended = await client.map(work.square, range(2000))
            assert len(await ended.results()) == 2000
            half = await client.submit_program(side.argv, tasks=tasks(12))
            await until(lambda: len(side.starts()) >= 6)
            accepted = [await client.map(work.square, range(100)) for _ in range(5)]
        for name in rig.cluster.peers:
            rig.cluster.kill(name)
        await rig.heal()
        side.let_go()
        async with rig.client() as client:
            view = await (await client.job(half.id)).wait()
            assert (view.state, view.succeeded) == (JobState.SUCCEEDED, 12)
            for job in accepted:
                await (await client.job(job.id)).wait()
        for name in rig.cluster.peers:
            assert await _values_at(rig, name, ended.id) == {n: n * n for n in range(2000)}
            for job in accepted:
                assert await _values_at(rig, name, job.id) == {n: n * n for n in range(100)}
        assert await rig.agree()

    asyncio.run(story())


async def _values_at(rig: Rig, name: str, job: JobId) -> dict[int, object]:
    """The results of an ended job that this one peer has."""
    session = rig.session_of(name)
    found: dict[int, object] = {}
    position = 0
    try:
        while True:
            page = await session.call(FetchResults(job, position), ResultPage)
            for segment in page.segments:
                found |= {result.index: result.value for result in results_of(job, segment)}
            position += len(page.segments)
            if position >= page.view.segments:
                return found
    finally:
        await session.__aexit__()


def test_one_job_id_from_two_clients_across_a_leader_kill_is_one_job(rig: Rig) -> None:
    side = rig.side("one-id")
    job_id = "5" * 32

    async def submit(client: Client, answers: list[str], stop: asyncio.Event) -> None:
        while not stop.is_set():
            job = await client.submit_program(side.argv, tasks=tasks(3), job_id=job_id)
            answers.append(job.id)

    async def story() -> None:
        leader = await rig.leader()
        stop = asyncio.Event()
        first: list[str] = []
        second: list[str] = []
        async with rig.client(leader) as one, rig.client(await rig.follower()) as two:
            async with asyncio.TaskGroup() as group:
                group.create_task(submit(one, first, stop))
                group.create_task(submit(two, second, stop))
                await until(lambda: bool(first and second))
                rig.cluster.kill(leader)
                before = len(first), len(second)
                await until(lambda: len(first) > before[0] and len(second) > before[1])
                stop.set()
            side.let_go()
            assert {*first, *second} == {job_id}
            view = await (await two.job(job_id)).wait()
            assert (view.tasks, view.succeeded) == (3, 3)
            same = [v for v in await two.jobs(limit=1000) if v.job == job_id]
            assert len(same) == 1
            await judge_history(await two.job(job_id))

    asyncio.run(story())


@pytest.mark.smoke
def test_without_a_majority_a_submit_is_unavailable_and_works_again_after(rig: Rig) -> None:
    async def story() -> None:
        survivor = await rig.leader()
        others = [name for name in rig.cluster.peers if name != survivor]
        async with Client(
            rig.cluster.peers[survivor].address,
            runtime_dir=rig.cluster.runtime_dir,
            patience_s=1.0,
        ) as client:
            for name in others:
                rig.cluster.kill(name)
            with pytest.raises(Unavailable):
                await client.submit(work.square, 3)
            rig.cluster.restart(others[0])
            await rig.cluster.wait_listening(others[0])

            async def works() -> bool:
                try:
                    return await client.submit(work.square, 7) == 49
                except Unavailable:
                    return False

            await until(works)

    asyncio.run(story())

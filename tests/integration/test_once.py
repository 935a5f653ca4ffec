"""Tasks that must not start twice, on real peers: a side file counts the starts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from p2psched.client.client import Client, Job
from p2psched.model.errors import Refused
from p2psched.model.job import JobState
from p2psched.model.messages import JobView
from p2psched.model.once import Decided
from p2psched.model.taskset import TaskSet
from tests.integration.rig import Rig, Side, Start, gone, tasks, until

pytestmark = pytest.mark.process


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def run_once(rig: Rig, client: Client, side: Side, victim: str) -> tuple[Job, list[Start]]:
    """Six tasks, two on each of the peers; those on `victim`."""
    job = await client.submit_program(side.argv, tasks=tasks(6), start="once")
    await until(lambda: len(side.starts()) == 6)
    return job, side.on(victim)


async def unknown(job: Job) -> TaskSet:
    return (await job.show()).once.tasks


async def lost(job: Job, starts: list[Start]) -> None:
    expected = TaskSet.from_indices(start.index for start in starts)

    async def is_so() -> bool:
        return await unknown(job) == expected

    await until(is_so)


@pytest.mark.smoke
def test_a_killed_owner_leaves_unknown_tasks_and_each_is_what_a_person_says(rig: Rig) -> None:
    side = rig.side("once-killed")

    async def story() -> None:
        victim = await rig.follower()
        async with rig.client(await rig.leader()) as client:
            job, mine = await run_once(rig, client, side, victim)
            rig.cluster.kill(victim)
            await lost(job, mine)
            done, again = sorted(start.index for start in mine)
            await until(lambda: all(gone(start.pid) for start in mine))
            for start in side.starts():
                if start not in mine:
                    side.let_go(start.index, start.peer)

            async def only_unknown() -> bool:
                view = await job.show()
                return (view.succeeded, view.owned, view.state) == (4, 0, JobState.RUNNING)

            await until(only_unknown)
            assert "job resolve" in (await job.show()).note
            assert len(side.starts()) == 6, "nobody has started one again"
            with pytest.raises(Refused):
                await job.resolve(tasks(6), "failed", reason="all of them")
            await job.resolve(done, "succeeded", result=b"as the list of the bank says\n")
            await job.resolve(again, "run-again", by="ann")
            side.let_go()
            view = await job.wait()
            assert (view.state, view.succeeded) == (JobState.SUCCEEDED, 6)
            assert Counter(start.index for start in side.starts())[again] == 2
            assert Counter(start.index for start in side.starts())[done] == 1
            events = (await job.history()).events
            decided = [each.event for each in events if isinstance(each.event, Decided)]
            assert [(event.tasks.first, event.by == "ann") for event in decided] == [
                (done, False),
                (again, True),
            ]
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


Part = Callable[[Job, Side, list[Start]], Awaitable[None]]


async def over_a_sleep(rig: Rig, side: Side, *, asleep: Part, awake: Part) -> JobView:
    """An owner sleeps until its two tasks, the starts that both parts are given, are unknown; in
    the end all others go, too. Nothing starts a second time."""
    victim = await rig.follower()
    peer = rig.cluster.peers[victim]
    async with rig.client(await rig.leader()) as client:
        job, mine = await run_once(rig, client, side, victim)
        peer.signal(signal.SIGSTOP)
        try:
            await lost(job, mine)
            await asleep(job, side, mine)
        finally:
            peer.signal(signal.SIGCONT)
        await awake(job, side, mine)
        side.let_go()
        view = await job.wait()
        assert len(side.starts()) == 6
    assert await rig.agree()
    return view


@pytest.mark.long
def test_an_owner_that_slept_goes_on_with_what_was_thought_lost(rig: Rig) -> None:
    """One of its two tasks ends during the sleep, the other runs on. Nobody has decided."""

    async def asleep(_job: Job, side: Side, mine: list[Start]) -> None:
        late = mine[0]
        side.let_go(late.index, late.peer)
        await until(lambda: gone(late.pid))

    async def awake(job: Job, _side: Side, mine: list[Start]) -> None:
        await lost(job, [])
        assert not gone(mine[1].pid)

    view = asyncio.run(over_a_sleep(rig, rig.side("once-slept"), asleep=asleep, awake=awake))
    assert (view.state, view.succeeded, view.attempts_lost) == (JobState.SUCCEEDED, 6, 0)


@pytest.mark.long
def test_what_a_person_has_given_up_is_ended_when_its_peer_wakes(rig: Rig) -> None:
    async def asleep(job: Job, _side: Side, _mine: list[Start]) -> None:
        await job.resolve(await unknown(job), "failed", reason="it took too long")

    async def awake(_job: Job, _side: Side, mine: list[Start]) -> None:
        await until(lambda: all(gone(start.pid) for start in mine))

    view = asyncio.run(over_a_sleep(rig, rig.side("once-decided"), asleep=asleep, awake=awake))
    assert (view.state, view.failed, view.succeeded) == (JobState.FAILED, 2, 4)


def test_a_program_whose_spawner_was_killed_is_unknown(rig: Rig) -> None:
    side = rig.side("once-spawner")

    async def story() -> None:
        async with rig.client() as client:
            job = await client.submit_program(side.argv, tasks=tasks(1), start="once")
            await until(lambda: len(side.starts()) == 1)
            (start,) = side.starts()
            os.kill(parent_of(start.pid), signal.SIGKILL)
            await lost(job, [start])
            await job.resolve(0, "run-again")
            await until(lambda: len(side.starts()) == 2)
            side.let_go()
            assert (await job.wait()).state is JobState.SUCCEEDED

    asyncio.run(story())

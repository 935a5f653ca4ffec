"""SIGSTOP: a peer that sleeps too long loses its tasks, and does no harm when it wakes."""

from __future__ import annotations

import asyncio
import signal

import pytest

from p2psched.client.job import Job
from p2psched.model.job import JobState
from tests.integration.rig import Rig, gone, tasks, until
from tests.integration.test_kill import moved, run_on_all

pytestmark = pytest.mark.process

MOVED_S = 12.0  # tasks of a stopped owner run elsewhere (L2)
USED_AGAIN_S = 2.0  # two probes of gossip after waking (S5)
ENDED_S = 2.0  # after waking, processes of tasks that moved are gone (E7)


@pytest.mark.smoke
def test_a_stopped_owner_loses_its_tasks_and_its_late_results_are_refused(rig: Rig) -> None:
    """One of its two tasks ends during the sleep: a late result. The other runs on: it is ended."""
    side = rig.side("owner-sleeps")

    async def story() -> None:
        victim = await rig.follower()
        peer = rig.cluster.peers[victim]
        async with rig.client(await rig.leader()) as client:
            before = (await rig.views(client))[victim].info.incarnation
            job, lost = await run_on_all(rig, client, side, victim)
            late, running = lost
            peer.signal(signal.SIGSTOP)
            try:
                await until(lambda: moved(side, lost), within_s=MOVED_S)
                side.let_go(late.index, victim)
                await until(lambda: gone(late.pid))
                assert not gone(running.pid), "nobody has told it to end"
            finally:
                peer.signal(signal.SIGCONT)
            await until(lambda: gone(running.pid), within_s=ENDED_S)
            assert (await job.show()).succeeded == 4, "no late result was taken"
            side.let_go()
            view = await job.wait()
            assert (view.state, view.succeeded) == (JobState.SUCCEEDED, 6)
            assert view.attempts_lost == 2
            for start in lost:
                item = (await job.item(start.index)).item
                assert item is not None
                assert f"done by {victim}".encode() not in item

            async def is_back() -> bool:
                found = (await rig.views(client))[victim]
                return found.state == "alive" and found.info.incarnation > before

            await until(is_back)
            again = rig.side("owner-is-back")
            again.let_go()
            await (await client.submit_program(again.argv, tasks=tasks(24))).wait()
            assert again.on(victim), "it takes work again"
        assert await rig.agree()

    asyncio.run(story())


@pytest.mark.long
def test_who_sleeps_gets_nothing_and_is_used_again_soon_after_it_wakes(rig: Rig) -> None:
    """S5: suspect, then dead; and within two intervals of gossip after SIGCONT it has tasks."""
    side = rig.side("sleeper-is-used-again")

    async def story() -> None:
        sleeper = await rig.follower()
        peer = rig.cluster.peers[sleeper]
        async with rig.client(await rig.leader()) as client:

            async def is_seen_as(state: str) -> bool:
                return (await rig.views(client))[sleeper].state == state

            peer.signal(signal.SIGSTOP)
            try:
                await until(lambda: is_seen_as("suspect"))
                job = await client.submit_program(side.argv, tasks=tasks(12))
                await until(lambda: len(side.starts()) == 4)
                await until(lambda: is_seen_as("dead"))
                assert not side.on(sleeper), "it was doubted before the job was there"
            finally:
                peer.signal(signal.SIGCONT)
            await until(lambda: bool(side.on(sleeper)), within_s=USED_AGAIN_S)
            side.let_go()
            assert (await job.wait()).state is JobState.SUCCEEDED

    asyncio.run(story())


def test_a_leader_that_slept_does_not_lead_on(rig: Rig) -> None:
    async def story() -> None:
        sleeper = await rig.leader()
        peer = rig.cluster.peers[sleeper]
        other = await rig.follower()
        async with rig.client(other) as client:
            peer.signal(signal.SIGSTOP)
            try:
                task = client.submit("operator:neg", 7)
                assert await task == -7
            finally:
                peer.signal(signal.SIGCONT)
            session = rig.session_of(sleeper)
            try:  # a read at the woken peer is of now, not of before
                from_sleeper = Job(session, task.job.id)
                assert (await from_sleeper.show()).state is JobState.SUCCEEDED
            finally:
                await session.__aexit__()
        assert await rig.leader() != sleeper
        assert await rig.agree()

    asyncio.run(story())

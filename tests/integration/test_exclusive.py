"""Exclusive tasks on real peers: two of one task never run at the same time, whatever becomes of
their peers. Each writes down every 20 ms that it runs, and so does a daemon that it starts."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client, Job
from p2psched.model.errors import Refused
from p2psched.model.job import Cause, JobState
from tests.integration.rig import Rig, tasks, until

pytestmark = pytest.mark.process

_BEAT: Final = """
import os, sys, time
folder, daemon = sys.argv[1], os.fork() == 0
if daemon:
    os.setsid()
name = f"{folder}/{os.environ['P2P_INDEX']}-{os.environ['P2P_FENCE']}-{os.getpid()}"
with open(name, "w", buffering=1) as file:
    file.write(os.environ["P2P_PEER"] + "\\n")
    while daemon or not os.path.exists(folder + "/go"):
        file.write(f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\\n")
        time.sleep(0.02)
"""
_BEATS: Final = (sys.executable, "-S", "-c", _BEAT)


class Beats:
    """What one process of a task wrote."""

    def __init__(self, file: Path) -> None:
        index, self.fence, _ = file.name.split("-")
        self.index = int(index)
        self.peer, *beats = file.read_text().split("\n")[:-1]
        self.first, self.last = (int(beats[0]), int(beats[-1])) if beats else (0, 0)

    @property
    def silent_s(self) -> float:
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.last) / 1e9


class Hearts:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def argv(self) -> list[str]:
        return [*_BEATS, str(self.folder)]

    def all(self) -> list[Beats]:
        found = (Beats(file) for file in self.folder.glob("*-*-*") if file.stat().st_size)
        return sorted((beats for beats in found if beats.first), key=lambda beats: beats.first)

    def on(self, peer: str) -> list[Beats]:
        return [beats for beats in self.all() if beats.peer == peer]

    def off(self, peer: str) -> list[Beats]:
        return [beats for beats in self.all() if beats.peer != peer]

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def check(self) -> None:
        """No two attempts of a task have run at one moment."""
        spans: dict[tuple[int, str], tuple[int, int]] = {}
        for beats in self.all():
            first, last = spans.get((beats.index, beats.fence), (beats.first, beats.last))
            spans[beats.index, beats.fence] = min(first, beats.first), max(last, beats.last)
        for (index, fence), (first, last) in spans.items():
            for (other, newer), (begun, _) in spans.items():
                if index == other and fence != newer and first <= begun:
                    assert last < begun, f"task {index}: {fence} ran when {newer} began"


@pytest.fixture
def hearts(rig: Rig, request: pytest.FixtureRequest) -> Hearts:
    return Hearts(rig.side(request.node.name.replace("[", "-").rstrip("]")).folder)


async def begun(
    rig: Rig, client: Client, hearts: Hearts, *, lease: str = "3s"
) -> tuple[Job, str, int]:
    """Three tasks with a daemon each; a peer that does not lead, and how many of them it has."""
    job = await client.submit_program(hearts.argv, tasks=tasks(3), start="exclusive", lease=lease)
    await until(lambda: len(hearts.all()) == 6)
    leader = await rig.leader()
    victim = hearts.off(leader)[0].peer
    return job, victim, len(hearts.on(victim)) // 2


async def lapsed(job: Job) -> int:
    return dict((await job.show()).bad_ends).get(Cause.LEASE_LOST, 0)


def test_tasks_of_a_killed_owner_begin_elsewhere_once_their_lease_is_over(
    rig: Rig, hearts: Hearts
) -> None:
    async def story() -> None:
        async with rig.client(await rig.leader()) as client:
            job, victim, count = await begun(rig, client, hearts)
            rig.cluster.kill(victim)
            killed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            await until(lambda: len(hearts.off(victim)) == 6)
            hearts.check()
            again = max(beats.first for beats in hearts.off(victim))
            print(f"from the kill to the next start: {(again - killed_ns) / 1e9:.2f} s")
            assert await lapsed(job) == count
            with pytest.raises(Refused, match="time decides"):
                await job.resolve(hearts.on(victim)[0].index, "failed", reason="impatience")
            hearts.let_go()
            view = await job.wait()
            assert (view.state, view.attempts_lost) == (JobState.SUCCEEDED, count)
            hearts.check()
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


def test_tasks_of_a_peer_that_is_stopped_begin_elsewhere_at_once(rig: Rig, hearts: Hearts) -> None:
    async def story() -> None:
        async with rig.client(await rig.leader()) as client:
            job, victim, count = await begun(rig, client, hearts, lease="1h")
            rig.cluster.peers[victim].signal(signal.SIGTERM)
            stopped_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            await until(lambda: len(hearts.off(victim)) == 6)
            hearts.check()
            again = max(beats.first for beats in hearts.off(victim))
            print(f"from the stop to the next start: {(again - stopped_ns) / 1e9:.2f} s")
            assert await lapsed(job) == 0
            hearts.let_go()
            view = await job.wait()
            assert (view.state, view.attempts_lost) == (JobState.SUCCEEDED, count)
            hearts.check()
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


def test_tasks_of_an_owner_that_stands_still_are_ended_there_before_they_begin_elsewhere(
    rig: Rig, hearts: Hearts
) -> None:
    async def story() -> None:
        async with rig.client(await rig.leader()) as client:
            job, victim, count = await begun(rig, client, hearts)
            peer = rig.cluster.peers[victim]
            peer.signal(signal.SIGSTOP)
            try:
                await until(lambda: len(hearts.off(victim)) == 6)
                assert all(beats.silent_s > 0.1 for beats in hearts.on(victim))
                hearts.check()
                assert await lapsed(job) == count
            finally:
                peer.signal(signal.SIGCONT)
            hearts.let_go()
            view = await job.wait()
            assert (view.state, view.attempts_lost) == (JobState.SUCCEEDED, count)
            hearts.check()
        assert await rig.agree()

    asyncio.run(story())


def test_a_task_runs_on_over_many_leases_and_ends_as_any_other(rig: Rig, hearts: Hearts) -> None:
    async def story() -> None:
        async with rig.client() as client:
            job = await client.submit_program(hearts.argv, start="exclusive", lease="3s")
            await until(lambda: len(hearts.all()) == 2)
            began = hearts.all()[0].first
            await until(lambda: hearts.all()[0].last - began > 7e9)
            hearts.let_go()
            view = await job.wait()
            assert (view.succeeded, view.attempts_lost, len(hearts.all())) == (1, 0, 2)
            # Also its daemon, which any other job would leave to itself.
            ended = max(beats.last for beats in hearts.all())
            await until(lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ended > 2e8)
            assert max(beats.last for beats in hearts.all()) == ended

    asyncio.run(story())


def _beating(folder: str) -> str:
    import os  # noqa: PLC0415 - it travels
    import pathlib  # noqa: PLC0415
    import time as clock  # noqa: PLC0415

    name = f"0-{os.environ['P2P_FENCE']}-{os.getpid()}"
    with (pathlib.Path(folder) / name).open("w", buffering=1) as file:
        file.write(os.environ["P2P_PEER"] + "\n")
        while not (pathlib.Path(folder) / "go").exists():
            file.write(f"{clock.clock_gettime_ns(clock.CLOCK_BOOTTIME)}\n")
            clock.sleep(0.02)
    return name


@pytest.mark.smoke
def test_a_function_of_an_owner_that_stands_still_is_ended_by_the_starter(
    rig: Rig, hearts: Hearts
) -> None:
    async def story() -> None:
        async with rig.client(await rig.leader()) as client:
            job = await client.map(
                _beating, [str(hearts.folder)], start="exclusive", lease=3.0, modules=()
            )
            await until(lambda: len(hearts.all()) == 1)
            (first,) = hearts.all()
            peer = rig.cluster.peers[first.peer]
            peer.signal(signal.SIGSTOP)
            try:
                await until(lambda: len(hearts.all()) == 2)
                hearts.check()
            finally:
                peer.signal(signal.SIGCONT)
        async with rig.client() as client:
            hearts.let_go()
            view = await (await client.job(job.id)).wait()
            assert (view.state, view.attempts_lost) == (JobState.SUCCEEDED, 1)
            hearts.check()
        assert await rig.agree()

    asyncio.run(story())

"""The wall clock is wrong, and jumps: nothing but what people are told depends on it (L10)."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.load import load
from tests.integration.rig import until

HOUR_S: Final = 3600
SOURCE: Final = Path(__file__).with_name("wall_clock.c")
# A busy machine deposes no leader that has the patience of this preset; an hour still would.
TIMING: Final = ("--timing", "edge")

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: cc"),
]


class Clocks:
    """Of peers that have not been started yet: each has one of its own."""

    def __init__(self, live: LiveCluster, names: str) -> None:
        library = live.folder / "wall_clock.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        self._files = {name: live.folder / f"clock-{name}" for name in names}
        for name, file in self._files.items():
            file.write_bytes(bytes(8))
            words = ("env", f"LD_PRELOAD={library}", f"WALL_CLOCK_FILE={file}")
            live.before[name] = words

    def set(self, name: str, ahead_s: int) -> None:
        with self._files[name].open("r+b") as file:  # they have mapped it
            file.write(ahead_s.to_bytes(8, sys.byteorder, signed=True))


async def lives(client: Client) -> tuple[str, int, set[tuple[str, int]]]:
    """Who leads, since which election, and how often each was declared down so far."""
    peers = await client.peers()
    leader = next(peer.info.name for peer in peers if peer.role == "leader")
    term = (await client.status()).term
    return leader, term, {(peer.info.name, peer.info.incarnation) for peer in peers}


async def submitted_s(client: Client) -> float:
    """When a job is submitted, as people are told."""
    return (await (await client.map(work.square, range(3))).show()).submitted_ms / 1000


def test_a_wall_clock_that_jumps_by_an_hour_changes_nothing(live: LiveCluster) -> None:
    clocks = Clocks(live, "abc")
    for name in "abc":
        live.start(name, slots=1, options=TIMING)

    async def story() -> None:
        async with live.client() as client:

            async def all_vote() -> bool:
                return all(peer.role != "learner" for peer in await client.peers())

            await until(all_vote)
            before = await lives(client)
            leader = before[0]
            other = next(name for name in "abc" if name != leader)
            began_s = await submitted_s(client)
            async with load(live.client()) as running:
                for ahead in (1, -1, 0):
                    clocks.set(leader, ahead * HOUR_S)
                    clocks.set(other, -ahead * HOUR_S)
                    # What people are told does follow: so the clock did jump.
                    told_s = await submitted_s(client) - began_s
                    assert round(told_s / HOUR_S, 1) == ahead
                    done = len(running)
                    await until(lambda done=done: len(running) >= done + 20)  # type: ignore[misc]
            await running.verify(client)
            assert await lives(client) == before, "nobody was taken for dead"

    asyncio.run(story())

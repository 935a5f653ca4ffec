"""An exclusive task that saves checkpoints, on real peers: its owner is killed at step 700 of
1,000, the next one goes on from 690 or later, and the two never run at the same time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import pytest

from p2psched.model.checkpoints import key_of
from p2psched.model.job import Cause, JobState
from tests.integration.rig import Rig, tasks, until

pytestmark = pytest.mark.process

STEPS: Final = 1_000
KILLED_AT: Final = 700
EVERY: Final = 10
# Renames into its folder each ten steps. The first attempt stays at step 700 until it is killed.
_LOOP: Final = f"""
import os, sys, time
folder, now = sys.argv[1], "state/now"
step = int(open(now).read()) if os.path.exists(now) else 0
stays = step == 0
with open(f"{{folder}}/{{os.environ['P2P_FENCE']}}", "w", buffering=1) as file:
    file.write(os.environ["P2P_PEER"] + "\\n")
    while step < {STEPS}:
        file.write(f"{{step}} {{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}}\\n")
        time.sleep(0.002)
        if stays and step == {KILLED_AT}:
            continue
        step += 1
        if step % {EVERY} == 0:
            with open("state/.now", "w") as state:
                state.write(str(step))
            os.replace("state/.now", now)
"""


class Attempt:
    def __init__(self, file: Path) -> None:
        self.peer, *lines = file.read_text().split("\n")[:-1]
        steps = [tuple(map(int, line.split())) for line in lines]
        self.first, self.begun_ns = steps[0] if steps else (0, 0)
        self.last, self.seen_ns = steps[-1] if steps else (0, 0)


def attempts(folder: Path) -> list[Attempt]:
    found = (Attempt(file) for file in folder.iterdir() if file.stat().st_size)
    return sorted((one for one in found if one.begun_ns), key=lambda one: one.begun_ns)


def newest(rig: Rig, name: str) -> int:
    """The number of the newest checkpoint on that peer's disk."""
    files = (rig.cluster.peers[name].data / "checkpoints").glob("*/*.checkpoint")
    return max((key[1] for file in files if (key := key_of(file.name)) is not None), default=0)


def test_the_next_owner_goes_on_from_the_copy_once_the_lease_is_over(rig: Rig) -> None:
    folder = rig.side("exclusive-with-checkpoints").folder

    async def story() -> None:
        async with rig.client(await rig.leader()) as client:
            job = await client.submit_program(
                [sys.executable, "-S", "-c", _LOOP, str(folder)],
                tasks=tasks(1),
                start="exclusive",
                lease="3s",
                checkpoint="state",
            )
            await until(lambda: any(one.last == KILLED_AT for one in attempts(folder)))
            owner = attempts(folder)[0].peer
        others = [name for name in rig.cluster.peers if name != owner]
        saved = KILLED_AT // EVERY
        await until(lambda: any(newest(rig, name) == saved for name in others))
        rig.cluster.kill(owner)
        async with rig.client(others[0]) as client:
            view = await (await client.job(job.id)).wait()
        first, second = attempts(folder)
        assert (first.peer, first.first, first.last) == (owner, 0, KILLED_AT)
        assert second.peer != owner
        assert second.first >= KILLED_AT - EVERY, "it goes on"
        assert first.seen_ns < second.begun_ns, "two of one task never run at the same time"
        assert (view.state, dict(view.bad_ends)) == (JobState.SUCCEEDED, {Cause.LEASE_LOST: 1})
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())

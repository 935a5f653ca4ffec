"""The wall clock is wrong, and jumps: nothing but what people are told depends on it (L10)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from tests.cluster import LiveCluster
from tests.integration.load import load
from tests.integration.rig import until

HOUR_S: Final = 3600
_LIBRARIES: Final = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(not _LIBRARIES, reason="needs libfaketime: apt-get install libfaketime"),
]


class Clocks:
    """Of peers that have not been started yet: each has one of its own."""

    def __init__(self, live: LiveCluster, names: str) -> None:
        self._files = {name: live.folder / f"clock-{name}" for name in names}
        for name, file in self._files.items():
            self.set(name, 0)
            live.before[name] = (
                *("env", f"LD_PRELOAD={_LIBRARIES[0]}", f"FAKETIME_TIMESTAMP_FILE={file}"),
                # Only the wall clock can be set by people; what counts time never steps.
                *("FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"),
            )

    def set(self, name: str, ahead_s: int) -> None:
        self._files[name].write_text(f"{ahead_s:+d}s\n")


async def terms(client: Client) -> tuple[str, int]:
    leader = next(peer.info.name for peer in await client.peers() if peer.role == "leader")
    return leader, (await client.status()).term


def test_a_wall_clock_that_jumps_by_an_hour_changes_nothing(live: LiveCluster) -> None:
    clocks = Clocks(live, "abc")
    for name in "abc":
        live.start(name, slots=1)

    async def story() -> None:
        async with live.client() as client:

            async def all_vote() -> bool:
                return all(peer.role != "learner" for peer in await client.peers())

            await until(all_vote)
            leader, term = await terms(client)
            other = next(name for name in "abc" if name != leader)
            seen: list[int] = []
            async with load(live.client()) as running:
                for ahead in (1, -1, 0):
                    clocks.set(leader, ahead * HOUR_S)
                    clocks.set(other, -ahead * HOUR_S)
                    before = len(running)
                    await until(lambda before=before: len(running) >= before + 20)  # type: ignore[misc]
                    seen.append((await running.accepted[-1].show()).submitted_ms)
            # What people are told does follow: so the clock did jump.
            assert 1.9 < (seen[0] - seen[1]) / HOUR_S / 1000 < 2.1
            await running.verify(client)
            assert await terms(client) == (leader, term), "nobody was taken for dead"
            assert (await client.status()).leaderless_ms < 10_000

    asyncio.run(story())

"""What a peer that waits costs: memory, and the core that it keeps awake."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from bench.cluster import family_cpu_s, pss_mib, running
from bench.registry import OURS, Measure, Stage
from bench.work import is_work

IDLE_S: Final = 10.0


async def footprint(_: Stage) -> Mapping[str, float]:
    """Of a new cluster of three: the two peers with a slot (one of them leads) after some work."""
    async with running((1, 1, 0)) as cluster, cluster.client() as client:
        job = await client.map("bench.work:work", range(100))
        assert is_work(await job.results(), 100)
        peers = [cluster.family(number) for number in range(3)]
        before = [family_cpu_s(family[0].pid) for family in peers]
        await asyncio.sleep(IDLE_S)
        found: dict[str, float] = {}
        for number, family in enumerate(peers):
            used_s = family_cpu_s(family[0].pid) - before[number]
            found[f"peer{number}_pss_mib"] = sum(map(pss_mib, family))
            found[f"peer{number}_idle_percent"] = used_s / IDLE_S * 100
            found[f"peer{number}_processes"] = len(family)
        return found


MEASURES: Final = (
    Measure(
        "footprint",
        "peers with one worker each (peer2: none), idle",
        {OURS: footprint},
        repeat_max=3,
    ),
)

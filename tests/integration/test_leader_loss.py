"""Leaders die one after another, idle and with both cores saturated (L1): each time the next submit
is accepted, and what was accepted ends once. How long it takes is for `make bench` to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from bench.cluster import running
from bench.leader_loss import Losses, busy_cores
from bench.measures.recovery import BUSY, SHARE
from bench.run import KILLS_ALL
from bench.stats import at
from tests.integration.rig import ROOT

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1800)]

Record = Callable[[str, object], None]
SLOTS: Final = (1, 1, 1)


@pytest.mark.parametrize(
    ("cores", "count"), [(0, KILLS_ALL), (BUSY, KILLS_ALL // SHARE)], ids=["idle", "busy"]
)
def test_after_each_leader_that_dies_a_submit_is_accepted_and_nothing_is_lost(
    record_property: Record, monkeypatch: pytest.MonkeyPatch, cores: int, count: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    async def story() -> list[float]:
        async with running(SLOTS) as cluster, Losses(cluster) as losses:
            with busy_cores(cores):
                return [await losses.kill() for _ in range(count)]

    waits_s = asyncio.run(story())
    found = {"p50": at(waits_s, 0.5), "p99": at(waits_s, 0.99), "max": max(waits_s)}
    record_property("submit_gap_s", {name: round(value, 2) for name, value in found.items()})
    print(f"seconds until a submit was accepted, of {count}: {found}")

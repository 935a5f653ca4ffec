"""The loss of leaders, measured: one of each kind, on real peers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from bench.cluster import running
from bench.judge import judge
from bench.leader_loss import Losses, busy_cores
from bench.work import work

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.process
def test_a_leader_that_is_killed_or_stops_costs_a_time_and_no_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    async def main() -> None:
        async with running((1, 0, 0)) as cluster, Losses(cluster) as losses:
            before = cluster.pids
            assert await losses.kill() > 0
            after = cluster.pids
            assert len(before - after) == 1
            assert await losses.stop() > 0
            assert len(after - cluster.pids) == 1
            assert len(losses.accepted) > 2
            await judge(losses.accepted[0], [work(1)])
            with pytest.raises(AssertionError):
                await judge(losses.accepted[0], [work(2)])

    asyncio.run(main())


def test_cores_are_busy_for_as_long_as_they_shall_be() -> None:
    me = psutil.Process()
    with busy_cores(2):
        spinning = [child for child in me.children() if "while True: pass" in child.cmdline()]
        assert len(spinning) == 2
    assert not any(child.is_running() for child in spinning)

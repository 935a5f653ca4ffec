"""A job of a million tasks: it ends, each value is right, and neither side holds it in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.model.limits import JOB_TASKS_MAX
from tests.cluster import LiveCluster

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(900)]

PEER_MIB_MAX: Final = 300
CLIENT_GROWTH_MIB_MAX: Final = 48
LOOK_S: Final = 0.1


def peak_mib(pid: int | str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def reset_own_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def look(client: Client, seen: list[int]) -> None:
    """As others do meanwhile: how far it has come, until it has ended."""
    while True:
        (view,) = await client.jobs()
        shown = await (await client.job("last")).show()
        assert view.tasks == shown.tasks == JOB_TASKS_MAX
        seen.append(shown.succeeded)
        if shown.succeeded == JOB_TASKS_MAX:
            return
        await asyncio.sleep(LOOK_S)


async def run_it(cluster: LiveCluster) -> list[int]:
    """Every value is looked at, each once; how far others saw it come."""
    done = bytearray(JOB_TASKS_MAX)
    seen: list[int] = []
    async with (
        Client(runtime_dir=cluster.runtime_dir) as client,
        Client(runtime_dir=cluster.runtime_dir) as other,
    ):
        job = await client.map("operator:neg", range(JOB_TASKS_MAX))
        async with asyncio.TaskGroup() as group:
            group.create_task(look(other, seen))
            async for result in job.as_completed():
                assert result.value == -result.index
                assert not done[result.index], "a result came twice"
                done[result.index] = 1
    assert all(done), "a result is missing"
    return seen


def test_a_job_of_a_million_tasks_is_served_in_flat_memory(tmp_path: Path) -> None:
    with LiveCluster(tmp_path) as cluster:
        for name, slots in (("a", 1), ("b", 1), ("c", 0)):
            cluster.start(name, slots=slots)
        reset_own_peak()
        before = peak_mib("self")
        seen = asyncio.run(run_it(cluster))
        assert peak_mib("self") - before <= CLIENT_GROWTH_MIB_MAX
        peaks = {name: peak_mib(peer.pid) for name, peer in cluster.peers.items()}
        assert max(peaks.values()) <= PEER_MIB_MAX, peaks
    assert seen == sorted(seen), "what was told once is not taken back"
    assert len(set(seen)) > 2, "nobody was answered while it ran"

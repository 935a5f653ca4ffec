"""Processes that die at each of their first syncs, or whose disk fails there: from outside, by
strace, while clients submit (P1, P3, P11)."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.faults import SYNCS, Called, Fault, calls_in, injected
from tests.integration.load import Load, load
from tests.integration.rig import Rig, running_cluster, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="needs strace: apt-get install strace"
    ),
]

KILLS: Final = range(1, 101)  # the sync at which a process dies, counted in each of its threads
FAILURES: Final = range(1, 51)
DIES_WITHIN_S: Final = 60.0
LATE: Final = range(1, 11)
SAYS: Final = "Input/output error"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_cluster(tmp_path_factory.mktemp("faulty")) as rig:
        yield rig


async def dies(rig: Rig, running: Load, name: str) -> int:
    """The exit code of a peer that meets a fault under load; nor is what comes next lost."""
    process = rig.cluster.peers[name].process
    assert process is not None
    running.wanted.set()
    await until(lambda: process.poll() is not None, within_s=DIES_WITHIN_S)
    before = len(running)
    await until(lambda: len(running) > before)
    running.wanted.clear()
    return process.wait()


async def verify(rig: Rig, running: Load) -> None:
    await rig.heal()
    async with rig.client() as client:
        await running.verify(client)
    assert await rig.agree()


def test_a_follower_that_dies_at_each_of_its_first_syncs_loses_nothing(
    own: Rig, tmp_path: Path
) -> None:
    """From the first one of its start on, so in the middle of its recovery too."""

    async def story() -> None:
        await own.heal()
        name = await own.follower()
        own.cluster.kill(name)
        async with load(own.client()) as running:
            for when in KILLS:
                kill = Fault(SYNCS, "signal=KILL", str(when))
                with own.starting_under(kill.before(tmp_path / "trace")):
                    own.cluster.restart(name)
                    code = await dies(own, running, name)
                assert code == -signal.SIGKILL, when
            assert len(running) >= len(KILLS)
        own.cluster.restart(name)
        await verify(own, running)

    asyncio.run(story())


def test_a_leader_that_dies_at_each_of_its_syncs_loses_nothing(own: Rig, tmp_path: Path) -> None:
    async def story() -> None:
        await own.heal()
        async with load(own.client()) as running:
            for when in KILLS:
                await own.heal()
                name = await own.leader()
                kill = Fault(SYNCS, "signal=KILL", str(when))
                pid = own.cluster.peers[name].pid
                with injected(pid, kill, into=tmp_path / "trace"):
                    code = await dies(own, running, name)
                assert code == -signal.SIGKILL, when
                own.cluster.restart(name)
        await verify(own, running)

    asyncio.run(story())


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_disk_that_fails_a_sync_ends_its_peer_at_once_and_nothing_is_lost(
    own: Rig, tmp_path: Path, role: str
) -> None:
    """With a word of what to do; what failed is never synced again by the same process."""

    async def story() -> None:
        await own.heal()
        async with load(own.client()) as running:
            for when in FAILURES:
                await own.heal()
                name = await (own.leader() if role == "leader" else own.follower())
                trace = tmp_path / f"trace-{when}"
                fault = Fault(SYNCS, "error=EIO", str(when))
                with injected(own.cluster.peers[name].pid, fault, into=trace):
                    code = await dies(own, running, name)
                said = own.cluster.peers[name].last_lines()
                assert code > 0, (when, said)
                assert SAYS in said, (when, said)
                assert not _synced_again(trace), (when, trace.read_text())
                own.cluster.restart(name)
        await verify(own, running)

    asyncio.run(story())


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_disk_that_tells_at_a_sync_that_it_is_full_ends_no_peer(
    own: Rig, tmp_path: Path, role: str
) -> None:
    """What the sync was for is cut off and written again; nobody was told of it before."""

    async def story() -> None:
        await own.heal()
        async with load(own.client()) as running:
            name = await (own.leader() if role == "leader" else own.follower())
            peer = own.cluster.peers[name]
            for when in LATE:
                segment = max((peer.data / "ledger").glob("log-*.seg"))
                trace = tmp_path / f"trace-{when}"
                full = Fault("fdatasync", "error=ENOSPC", str(when), [segment])
                with injected(peer.pid, full, into=trace):
                    running.wanted.set()
                    await until(
                        lambda trace=trace: "INJECTED" in trace.read_text(),  # type: ignore[misc]
                        within_s=DIES_WITHIN_S,
                    )
                    before = len(running)
                    await until(lambda before=before: len(running) > before + 3)  # type: ignore[misc]
                    running.wanted.clear()
                assert peer.runs, peer.last_lines()
        await verify(own, running)
        assert peer.runs

    asyncio.run(story())


def _synced_again(trace: Path) -> list[Called]:
    """Syncs of a file after one of it failed. Not of SQLite's, which ends its own in its way:
    what is in them is no truth, and comes back from the ledger."""
    failed: set[str] = set()
    again = []
    calls = calls_in(trace)
    assert any(call.injected for call in calls), trace.read_text()
    for call in calls:
        if call.path in failed:
            again.append(call)
        if call.injected and "/results.db" not in call.path:
            failed.add(call.path)
    return again

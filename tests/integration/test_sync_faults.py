"""Processes that die at each of their first syncs, or whose disk fails there: from outside, by
strace, while clients submit (P1, P3, P11)."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.integration.load import Load, load
from tests.integration.rig import Rig, running_cluster, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

KILLS: Final = range(1, 101)  # the sync at which a process dies, counted in each of its threads
FAILURES: Final = range(1, 51)
LATE: Final = range(1, 11)
DIES_WITHIN_S: Final = 60.0
_SYNC: Final = re.compile(r"^\d+ +(?:fsync|fdatasync)\((\d+)<([^>]*)>\)?(.*)$")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_cluster(tmp_path_factory.mktemp("faulty")) as rig:
        yield rig


@contextmanager
def injected(
    pid: int, fault: str, *, when: int, into: Path, file: Path | None = None
) -> Iterator[None]:
    """A fault at the sync number `when` of any thread of a process, counted from now; of one `file`
    if it is named, and then not at the one that cuts it."""
    calls = "fsync,fdatasync" if file is None else "fdatasync"
    argv = ["strace", "-f", "-y", "-e", f"trace={calls}", "-e", "signal=none"]
    argv += ["-P", str(file)] if file is not None else []
    with subprocess.Popen(
        [*argv, "-e", f"inject={calls}:{fault}:when={when}", "-o", str(into), "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    ) as strace:
        assert strace.stderr is not None
        try:
            if "attached" not in (first := strace.stderr.readline()):
                pytest.skip(f"this machine lets nobody trace: {first}")
            yield
        finally:
            strace.terminate()
            strace.stderr.read()


async def dies(rig: Rig, running: Load, name: str, fault: str, *, when: int, into: Path) -> int:
    """The exit code of a peer that meets a fault under load."""
    process = rig.cluster.peers[name].process
    assert process is not None
    with injected(process.pid, fault, when=when, into=into):
        running.wanted.set()
        await until(lambda: process.poll() is not None, within_s=DIES_WITHIN_S)
    before = len(running)  # nor is what comes next lost
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
                own.cluster.restart(name)
                code = await dies(
                    own, running, name, "signal=KILL", when=when, into=tmp_path / "trace"
                )
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
                code = await dies(
                    own, running, name, "signal=KILL", when=when, into=tmp_path / "trace"
                )
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
                code = await dies(own, running, name, "error=EIO", when=when, into=trace)
                assert code > 0, (when, own.cluster.peers[name].last_lines())
                assert "Input/output error" in own.cluster.peers[name].last_lines()
                assert not _synced_again(trace), trace.read_text()
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
            process = own.cluster.peers[name].process
            assert process is not None
            for when in LATE:
                segment = max((own.cluster.peers[name].data / "ledger").glob("log-*.seg"))
                trace = tmp_path / f"trace-{when}"
                with injected(process.pid, "error=ENOSPC", when=when, into=trace, file=segment):
                    running.wanted.set()
                    await until(
                        lambda trace=trace: "INJECTED" in trace.read_text(),  # type: ignore[misc]
                        within_s=DIES_WITHIN_S,
                    )
                    before = len(running)
                    await until(lambda before=before: len(running) > before + 3)  # type: ignore[misc]
                    running.wanted.clear()
                assert process.poll() is None, own.cluster.peers[name].last_lines()
        await verify(own, running)
        assert process.poll() is None

    asyncio.run(story())


def _synced_again(trace: Path) -> list[str]:
    """Files of which a sync failed and that were synced after it. SQLite ends its own in its way:
    what is in them is no truth, and comes back from the ledger."""
    failed: set[str] = set()
    again = []
    for line in trace.read_text().splitlines():
        if (sync := _SYNC.match(line)) is None:
            continue
        _, path, rest = sync.groups()
        if path in failed and "/results.db" not in path:
            again.append(line)
        if "INJECTED" in rest:
            failed.add(path)
    assert failed, "the trace shows no fault"
    return again

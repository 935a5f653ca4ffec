"""Writes that find no space, that store a part, or that store nothing and lie about it, in peers
that run and that start (P1, P6, P10; ADR 0022, ADR 0025)."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.store.marker import MARKER
from p2psched.store.segments import segment_name
from tests.cluster import LiveCluster
from tests.integration.faults import WRITES, Fault, calls_in, injected
from tests.integration.load import Load, load
from tests.integration.rig import Rig, running_cluster, until

pytestmark = pytest.mark.process
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace: apt-get install strace"
)

FIRST: Final = 50  # writes that fail, of each kind
EVERY: Final = 3  # that one fails, and the next ones work; begun with each of the first three
EVERY_S: Final = 0.05  # between two jobs: each is judged, twice
STARTS: Final = range(1, 13)  # a start writes about so often
SHORT: Final = Path(__file__).parent / "short_writes"
NAMES: Final = ("a", "b", "c")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_cluster(tmp_path_factory.mktemp("faulty")) as rig:
        yield rig


def segments(data: Path) -> list[Path]:
    """Of the log, those to come too."""
    numbers = [int(path.stem.removeprefix("log-")) for path in (data / "ledger").glob("log-*.seg")]
    return [data / "ledger" / segment_name(n) for n in range(1, max(numbers, default=0) + 4)]


def files(data: Path) -> list[Path]:
    """What a peer writes while no job is large."""
    asides = [data / "ledger" / f".{MARKER}.new", data / "identity.new", data / "peers.json.new"]
    return [*segments(data), *asides, data / "results.db", data / "results.db-wal"]


def hits(trace: Path) -> Counter[str]:
    """Faults by the kind of file."""
    return Counter(Path(call.path).suffix for call in calls_in(trace) if call.injected)


async def verify(rig: Rig, running: Load) -> None:
    """As it is now, and by what is on the disks."""
    for kills in (False, True):
        if kills:
            for name in rig.cluster.peers:
                rig.cluster.kill(name)
        await rig.heal()
        async with rig.client() as client:
            await running.verify(client)
        assert await rig.agree()


@needs_strace
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_peer_goes_on_after_each_of_its_first_writes_found_no_space_and_loses_nothing(
    own: Rig, tmp_path: Path, role: str
) -> None:
    async def story() -> None:
        await own.heal()
        async with load(own.client(), every_s=EVERY_S) as running:
            for first in range(1, EVERY + 1):
                running.wanted.clear()
                name = await (own.leader() if role == "leader" else own.follower())
                peer = own.cluster.peers[name]
                trace = tmp_path / f"trace-{first}"
                fault = Fault(WRITES, "error=ENOSPC", f"{first}+{EVERY}", files(peer.data))
                with injected(peer.pid, fault, into=trace):
                    running.wanted.set()
                    await until(lambda trace=trace: _all_hit(trace), within_s=240)  # type: ignore[misc]
                before = len(running)
                await until(lambda before=before: len(running) > before)  # type: ignore[misc]
                assert peer.runs, peer.last_lines()
        await verify(own, running)

    asyncio.run(story())


def _all_hit(trace: Path) -> bool:
    """The log, its marker, and the results, and each of them so often."""
    found = hits(trace)
    return min(found[kind] for kind in (".seg", ".new", ".db-wal")) > FIRST // EVERY


@needs_strace
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_start_that_finds_no_space_at_any_write_works_or_says_so(tmp_path: Path) -> None:
    async def accept(cluster: LiveCluster, accepted: Load) -> None:
        async with cluster.client("a") as client, asyncio.TaskGroup() as group:
            running = group.create_task(accepted.run(client))
            wanted = len(accepted) + 3
            await until(lambda: len(accepted) >= wanted)
            running.cancel()

    async def story(cluster: LiveCluster) -> None:
        accepted = Load()
        for when in STARTS:
            data = cluster.peers["c"].data
            cluster.kill("c")
            await accept(cluster, accepted)
            fault = Fault(WRITES, "error=ENOSPC", str(when), files(data))
            cluster.before["c"] = tuple(fault.before(tmp_path / "trace"))
            said = len(cluster.peers["c"].log)
            peer = cluster.restart_nowait("c")
            assert peer.process.stdout is not None
            if not peer.process.stdout.readline():
                assert peer.process.wait() > 0
                assert "space" in peer.log[said:], (when, peer.log[said:])
                cluster.before.clear()
                cluster.restart("c")
            cluster.before.clear()
            await accept(cluster, accepted)
        async with cluster.client("c") as client:
            await accepted.verify(client)

    with LiveCluster(tmp_path) as cluster:
        for name in NAMES:
            cluster.start(name, slots=1)
        cluster.await_voters(3)  # of two that vote none may be killed
        asyncio.run(story(cluster))


@needs_strace
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_write_that_was_lost_without_a_word_is_found_at_the_next_start(
    own: Rig, tmp_path: Path
) -> None:
    """Two bytes of a write are reported as written and are nowhere; the rest follows."""

    async def story() -> None:
        await own.heal()
        async with load(own.client(), every_s=EVERY_S) as running:
            for when in range(1, FIRST + 1):
                name = await (own.leader() if when % 2 else own.follower())
                peer = own.cluster.peers[name]
                trace = tmp_path / f"trace-{when}"
                lie = Fault(WRITES, "retval=2", str(when), segments(peer.data))
                with injected(peer.pid, lie, into=trace):
                    running.wanted.set()
                    await until(lambda trace=trace: bool(hits(trace)))  # type: ignore[misc]
                wanted = len(running) + 5
                await until(lambda wanted=wanted: len(running) >= wanted)  # type: ignore[misc]
                running.wanted.clear()
                own.cluster.kill(name)
                said = len(peer.log.read_text())
                own.cluster.restart(name)
                await own.heal()
                noticed = peer.log.read_text()[said:]
                assert "log-damaged" in noticed or "log-tail-cut" in noticed, (when, noticed)
                if "log-damaged" in noticed:  # one disk at a time
                    await until(
                        lambda log=peer.log, said=said: "log-regained" in log.read_text()[said:]  # type: ignore[misc]
                    )
        await verify(own, running)

    asyncio.run(story())


@pytest.mark.timeout(300)
def test_writes_that_store_a_part_are_finished(tmp_path: Path) -> None:
    async def story(cluster: LiveCluster) -> None:
        async with load(cluster.client("a")) as running:
            await until(lambda: len(running) >= 30)
        for name in NAMES:
            cluster.kill(name)
        for name in NAMES:
            cluster.restart_nowait(name)
        for name in NAMES:
            cluster.wait_ready(cluster.peers[name])
        async with cluster.client("b") as client:
            await running.verify(client)

    data = tmp_path / "data"
    data.mkdir()
    with LiveCluster(data) as cluster:
        cluster.env["PYTHONPATH"] = f"{SHORT}:{cluster.env.get('PYTHONPATH', '')}"
        cluster.env["SHORT_WRITES"] = str(data)
        for name in NAMES:
            cluster.start(name, slots=1)
        cluster.await_voters(3)  # of two that vote none may be killed
        asyncio.run(story(cluster))
        cluster.stop("c")
        cluster.ok("ledger", "verify", str(data / "c"))
    assert (tmp_path / "data.count").stat().st_size >= FIRST

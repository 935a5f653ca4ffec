"""The main job on three peers whose ledger is carried by raftos, while its leaders are killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched.demo.static import StaticCluster
from p2psched.model.job import JobState
from p2psched.peer.verify import verify
from tests.engines.test_contract import needs_raftos
from tests.integration import work
from tests.integration.load import load
from tests.integration.rig import NAMES, ROOT, SLOTS, Rig, tasks, until

pytestmark = [pytest.mark.process, needs_raftos]


@pytest.fixture(scope="module")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path_factory.mktemp("raftos")
    with StaticCluster(folder, names=NAMES, environ=environ) as cluster:
        for name in NAMES:
            cluster.start(name, slots=SLOTS)
        yield Rig(cluster)


@pytest.fixture
def rig(_cluster: Rig) -> Rig:
    asyncio.run(_cluster.heal())
    return _cluster


def test_the_main_job_is_exact_while_its_leaders_are_killed(rig: Rig) -> None:
    """A sweep of functions and one of commands, of which the leader runs some when it dies."""
    side = rig.side("main-job")

    async def story() -> None:
        leader = await rig.leader()
        async with rig.client(await rig.follower()) as client:
            commands = await client.submit_program(side.argv, tasks=tasks(SLOTS * len(NAMES)))
            await until(lambda: len(side.on(leader)) == SLOTS)
            async with load(rig.client()) as running:
                functions = await client.map(work.square, range(3000))
                await until(lambda: len(running) >= 5)
                rig.cluster.kill(leader)
                before = len(running)
                await until(lambda: len(running) >= before + 10)
                rig.cluster.restart(leader)
                await rig.heal()
                side.let_go()
                assert (await commands.wait()).state == JobState.SUCCEEDED
                assert await functions.results() == [number * number for number in range(3000)]
            await running.verify(client)
            starts = side.starts()
            assert {start.peer for start in starts} == set(NAMES)
            assert len(starts) > SLOTS * len(NAMES)  # what the dead one ran, ran again
        assert await rig.agree()

    asyncio.run(story())


def test_results_that_fit_no_datagram_are_committed_whole(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client() as client:
            job = await client.map(work.block, range(40))
            assert await job.results() == [work.block(number) for number in range(40)]
        assert await rig.agree()

    asyncio.run(story())


def test_what_was_accepted_is_there_after_all_peers_were_killed_at_once(rig: Rig) -> None:
    async def story() -> None:
        async with load(rig.client()) as running:
            await until(lambda: len(running) >= 10)
        for name in NAMES:
            rig.cluster.kill(name)
        found = {verify(peer.data).last_index for peer in rig.cluster.peers.values()}
        assert min(found) > 10
        await rig.heal()
        async with rig.client() as client:
            await running.verify(client)
        assert await rig.agree()

    asyncio.run(story())


def run(rig: Rig, *words: str) -> str:
    """What a command that is refused says."""
    done = subprocess.run(
        [sys.executable, "-m", "p2psched", *words],
        env={**os.environ, "P2PSCHED_RUNTIME_DIR": str(rig.cluster.runtime_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr


def test_what_this_engine_can_not_do_is_refused_in_a_sentence(rig: Rig, tmp_path: Path) -> None:
    log = rig.cluster.peers["a"].log
    asyncio.run(until(lambda: "raftos, for labs in a trusted network" in log.read_text()))
    said = run(rig, "ledger", "compact", "a")
    assert "a raftos ledger has no snapshots, and its log can't be compacted" in said
    address = rig.cluster.peers["a"].address
    new = ("--name", "d", "--data", str(tmp_path / "d"), "--listen", "127.0.0.1:0")
    said = run(rig, "start", *new, "--join", address)
    assert "d can't join: the group of a raftos ledger is the one that" in said


def test_a_peer_stays_with_its_engine_and_its_group(rig: Rig) -> None:
    async def story() -> None:
        name = await rig.follower()
        peer = rig.cluster.peers[name]
        rig.cluster.kill(name)
        again = ("start", "--name", name, "--data", str(peer.data), "--listen", peer.address)
        assert "keeps a ledger of raftos" in run(rig, *again, "--ledger", "raft")
        other = ("--ledger", "raftos", "--group", peer.address)
        assert "is static, and that of" in run(rig, *again, *other)
        assert "--listen has to be one of" in run(rig, *again[:-1], "127.0.0.1:0")

    asyncio.run(story())

"""A cluster is upgraded peer by peer under load, from an install of an older version to one of
this."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from p2psched.cli.demo_watch import statuses
from p2psched.demo.cluster import LocalCluster, LocalPeer
from tests.integration.load import Load, load
from tests.integration.rig import NAMES, SLOTS, Rig, until
from tests.upgrade.installs import (
    Install,
    NoHistory,
    install_commit,
    install_here,
    older_commit,
)

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(600)]

JOBS: Final = 10  # that are accepted in each state of the cluster
LEADS_MAX: Final = 20  # restarts until a leader of the wanted version is drawn


class Upgraded(LocalCluster):
    """Each peer is started by the install that is its own at the time."""

    def __init__(self, folder: Path) -> None:
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        super().__init__(folder, environ=environ)
        self.install_of: dict[str, Install] = {}

    def _spawn(self, peer: LocalPeer, more: Sequence[str]) -> None:
        self._command = (str(self.install_of[peer.name].command), "start")
        super()._spawn(peer, more)


def _runs_from(install: Install, peer: LocalPeer) -> bool:
    return str(install.folder).encode() in Path(f"/proc/{peer.pid}/cmdline").read_bytes()


@pytest.fixture(scope="module")
def installs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Install, Install]:
    try:
        commit = older_commit()
    except NoHistory as reason:
        pytest.skip(str(reason))
    older = install_commit(commit, tmp_path_factory.mktemp("older"))
    return older, install_here(tmp_path_factory.mktemp("newer"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Upgraded]:
    started = Upgraded(tmp_path)
    with started:
        yield started


class Upgrade:
    def __init__(self, cluster: Upgraded, older: Install, newer: Install) -> None:
        self.cluster = cluster
        self.rig = Rig(cluster)
        self.older = older
        self.newer = newer

    async def begin(self) -> None:
        for name in NAMES:
            self.cluster.install_of[name] = self.older
            self.cluster.start(name, slots=SLOTS)
            await self.cluster.wait_listening(name)
        await self.rig.heal()

    async def replace(self, name: str, install: Install) -> None:
        """A clean stop, and a start on the same folder."""
        await self.stop(name)
        self.cluster.install_of[name] = install
        peer = self.cluster.restart(name)
        await self.rig.heal()
        assert _runs_from(install, peer)

    async def stop(self, name: str) -> None:
        process = self.cluster.peers[name].process
        assert process is not None
        process.terminate()
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0

    async def levels(self) -> set[int]:
        """In use, as all peers say."""
        return {status.level for status in (await statuses(self.cluster)).values()}

    async def let_lead(self, install: Install) -> None:
        """Leaders of the other version are stopped and started until one of this leads."""
        for _ in range(LEADS_MAX):
            name = await self.rig.leader()
            if self.cluster.install_of[name] is install:
                return
            await self.replace(name, self.cluster.install_of[name])
        raise AssertionError(f"no leader of {install.name} in {LEADS_MAX} elections")

    async def more(self, running: Load) -> None:
        before = len(running)
        await until(lambda: len(running) >= before + JOBS)

    def start_refused(self, name: str, install: Install) -> str:
        """What a start of this version on a stopped peer's folder says as it ends."""
        peer = self.cluster.peers[name]
        done = subprocess.run(
            [str(install.command), "start", "--data", str(peer.data), "--listen", peer.address],
            env={**os.environ, "P2PSCHED_RUNTIME_DIR": str(self.cluster.runtime_dir)},
            cwd=self.cluster.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        return done.stderr


def test_peers_are_upgraded_one_by_one_under_load(
    cluster: Upgraded, installs: tuple[Install, Install]
) -> None:
    """Mixed for a while, led by each of both versions; the level rises with the last peer only,
    until when each may go back."""
    older, newer = installs
    upgrade = Upgrade(cluster, older, newer)
    rig = upgrade.rig

    async def story() -> None:
        await upgrade.begin()
        assert await upgrade.levels() == {older.level}
        async with load(rig.client()) as running:
            await upgrade.more(running)
            first = await rig.follower()
            second, last = (name for name in NAMES if name != first)
            await upgrade.replace(first, newer)
            await upgrade.let_lead(older)
            await upgrade.more(running)
            await upgrade.replace(second, newer)
            await upgrade.let_lead(newer)
            await upgrade.more(running)
            assert await upgrade.levels() == {older.level}
            await upgrade.replace(first, older)  # not everybody is content
            await upgrade.more(running)
            await upgrade.replace(first, newer)
            await upgrade.let_lead(older)
            await upgrade.more(running)
            assert await upgrade.levels() == {older.level}
            await upgrade.replace(last, newer)

            async def risen() -> bool:
                return await upgrade.levels() == {newer.level}

            await until(risen)
            await upgrade.more(running)
            await _go_back(upgrade, last, running)
        async with rig.client() as client:
            await running.verify(client)
            await (await client.map(abs, range(3))).results()
        assert await rig.agree()

    asyncio.run(story())


async def _go_back(upgrade: Upgrade, name: str, running: Load) -> None:
    """Refused once the cluster uses what the older version doesn't know."""
    older, newer = upgrade.older, upgrade.newer
    if older.level == newer.level:
        await upgrade.replace(name, older)
        await upgrade.more(running)
        await upgrade.replace(name, newer)
        return
    await upgrade.stop(name)
    said = upgrade.start_refused(name, older)
    # It may come to a command of the new level before it has seen that the level was raised.
    by_level = (
        f"the ledger uses feature level {newer.level}, and this version of p2psched knows "
        f"{older.level}: install the version that"
    )
    by_command = "holds a command that this version does not know"
    assert by_level in said or (by_command in said and "run the same version" in said)
    upgrade.cluster.restart(name)
    await upgrade.rig.heal()


def test_a_commit_that_is_not_there_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PSCHED_UPGRADE_FROM", "0" * 40)
    with pytest.raises(NoHistory, match="is not in this repository's history"):
        older_commit()

"""What the program around a peer may do: block its loop, fork, and end without a word."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import pytest

from p2psched import Client, Peer
from p2psched.model.config import Config as WholeConfig
from p2psched.model.peer_messages import PeerView
from tests.cluster import COMMAND_S, LiveCluster
from tests.embed.rig import PATIENCE_S, config, double, until
from tests.integration.rig import gone

pytestmark = pytest.mark.process

WINDOW_S: Final = (
    WholeConfig(name="", data="", listen="", slots=0, python="", runtime_dir="").detection_window_ms
    / 1000
)


class Outsider(threading.Thread):
    """Sees the cluster through another peer, while the host is blocked."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client
        self.seen = threading.Event()
        self.views: list[PeerView] = []
        self.values: list[object] = []

    def run(self) -> None:
        try:
            asyncio.run(self._look())
        finally:
            self.seen.set()

    async def _look(self) -> None:
        async with self._client as client:
            began_s = (await client.status()).uptime_s

            async def long_after() -> bool:
                # Only the embedded peer has slots: its tasks run, or nobody's.
                job = await client.map(double, [len(self.values)])
                self.values += await job.results()
                return (await client.status()).uptime_s > began_s + 1.5 * WINDOW_S

            await until(long_after)
            self.views = await client.peers()


def test_a_host_that_blocks_its_loop_for_longer_than_the_window_is_not_declared_dead(
    tmp_path: Path,
) -> None:
    async def main(live: LiveCluster) -> None:
        first = live.start("outside", slots=0)
        async with Peer(config(tmp_path, "inside", first.address)) as peer:
            outsider = Outsider(Client(first.address, runtime_dir=live.runtime_dir))
            outsider.start()
            assert outsider.seen.wait(PATIENCE_S)  # this is the host's loop, and it stands still
            outsider.join()
            [view] = [view for view in outsider.views if view.info.peer == peer.id]
            assert (view.state, view.info.incarnation) == ("alive", 1)
            assert outsider.values == [2 * number for number in range(len(outsider.values))]
            assert outsider.values
            assert await peer.submit(double, 5) == 10

    with LiveCluster(tmp_path) as live:
        asyncio.run(main(live))


FORKS: Final = """
import asyncio, os, sys
from p2psched import Config, Peer
from p2psched.model.errors import UsageError

config = Config(name="a", data=sys.argv[1] + "/a", runtime_dir=sys.argv[1] + "/run", slots=0)

def in_child(peer, until_closed):
    try:
        peer.address
    except UsageError as error:
        os.write(1, f"child: {error}\\n".encode())
    os.read(until_closed, 1)  # it holds what it inherited for as long as its parent wants
    os._exit(0)

async def main():
    reading, writing = os.pipe()
    async with Peer(config) as peer:
        child = os.fork()
        if child == 0:
            os.close(writing)
            in_child(peer, reading)
    async with Peer(config) as peer:
        print("parent: started again", flush=True)
    os.close(writing)
    os.waitpid(child, 0)

asyncio.run(main())
"""


def test_a_fork_of_the_program_is_told_that_the_peer_is_not_its_own_and_holds_no_folder(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "child: this is a fork of the program: the peer lives in its parent alone",
        "parent: started again",
    ]


ENDS: Final = """
import asyncio, os, sys, psutil
from p2psched import Config, Peer

async def main():
    folder = sys.argv[1]
    peer = Peer(Config(name="a", data=folder + "/a", runtime_dir=folder + "/run", slots=1))
    await peer.__aenter__()
    job = await peer.client.submit_program(["sh", "-c", f"touch {folder}/began; sleep 600"])
    while not os.path.exists(folder + "/began"):
        await asyncio.sleep(0.02)
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)

asyncio.run(main())
"""


def test_a_program_that_ends_without_leaving_the_block_is_not_held_up_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) >= 3  # starter, spawner, sh

    async def all_gone() -> bool:
        return all(gone(pid) for pid in pids)

    asyncio.run(until(all_gone))

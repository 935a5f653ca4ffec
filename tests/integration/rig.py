"""A real cluster for tests: three peers as processes, healed before each test.

Programs that the tests run tell by a line in a side file that they began (`Start`), and go on
until a file lets them: what runs where is seen from outside, not believed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2psched.cli.demo_watch import statuses, wait_agreement, wait_leader
from p2psched.client.client import Client
from p2psched.client.session import Session
from p2psched.demo.cluster import START, LocalCluster
from p2psched.model.peer_messages import PeerView
from p2psched.model.taskset import TaskSet
from p2psched.store.folder import read_secret_file

NAMES: Final = ("a", "b", "c")
SLOTS: Final = 2
PATIENCE_S: Final = 30.0
ROOT: Final = Path(__file__).resolve().parents[2]
# Of a peer. The file holds words that come before the command, if any.
_COMMAND: Final = ("sh", "-c", 'exec $(cat "$0") "$@"')
# Says that it began, then waits for `go-INDEX-PEER` or `go`, at most a minute.
_WAITING_TASK: Final = """
echo "$P2P_INDEX $P2P_PEER $P2P_FENCE $$" >> "$1/starts"
n=0
while [ ! -e "$1/go" ] && [ ! -e "$1/go-$P2P_INDEX-$P2P_PEER" ] && [ $n -lt 1200 ]; do
  sleep 0.05; n=$((n + 1))
done
echo "done by $P2P_PEER"
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One line of the side file."""

    index: int
    peer: str  # name
    grant: int
    pid: int


class Rig:
    """The cluster and a folder for side files."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.folder = cluster.folder

    def client(self, name: str | None = None) -> Client:
        """Connected to a peer by name, or to any."""
        address = self.cluster.peers[name].address if name is not None else None
        return Client(address, runtime_dir=self.cluster.runtime_dir)

    def session_of(self, name: str) -> Session:
        """Asks this peer and no other."""
        secret = read_secret_file(self.cluster.secret_path)
        return Session([self.cluster.peers[name].address], secret=secret)

    async def heal(self) -> None:
        """All peers run, are alive to the ledger, and vote."""
        await self.cluster.wait_listening()
        for name, peer in self.cluster.peers.items():
            if not peer.runs:
                self.cluster.restart(name)
        await self.cluster.wait_listening()
        async with self.client() as client:

            async def healed() -> bool:
                views = await client.peers()
                pids = {peer.pid for peer in self.cluster.peers.values()}
                good = [v for v in views if v.state == "alive" and v.role != "learner"]
                return {view.info.pid for view in good} == pids

            await until(healed)

    async def views(self, client: Client) -> dict[str, PeerView]:
        return {view.info.name: view for view in await client.peers()}

    async def leader(self) -> str:
        name, _ = await wait_leader(self.cluster)
        return name

    async def follower(self) -> str:
        leader = await self.leader()
        return next(name for name in self.cluster.peers if name != leader)

    async def agree(self) -> bool:
        """P4: one state hash at one applied index."""
        return await wait_agreement(self.cluster) and len(await statuses(self.cluster)) == 3

    @contextmanager
    def starting_under(self, words: Sequence[str]) -> Iterator[None]:
        """Whatever is started meanwhile is started by this command."""
        before = _before(self.folder)
        before.write_text(" ".join(words))
        try:
            yield
        finally:
            before.write_text("")

    # --- side files -------------------------------------------------------------------------------

    def side(self, name: str) -> Side:
        folder = self.folder / name
        folder.mkdir()
        return Side(folder)


def _before(folder: Path) -> Path:
    return folder / "before"


class Side:
    """The side files of one job of waiting tasks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def argv(self) -> list[str]:
        return ["sh", "-c", _WAITING_TASK, "task", str(self.folder)]

    def starts(self) -> list[Start]:
        try:
            lines = (self.folder / "starts").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [
            Start(int(index), peer, int(fence.split(".")[1]), int(pid))
            for index, peer, fence, pid in map(str.split, lines)
        ]

    def on(self, peer: str) -> list[Start]:
        return [start for start in self.starts() if start.peer == peer]

    def let_go(self, index: int | None = None, peer: str = "") -> None:
        """One task on one peer, or all."""
        name = "go" if index is None else f"go-{index}-{peer}"
        (self.folder / name).touch()


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = PATIENCE_S
) -> float:
    """Wait for it; the seconds that it took. Raises TimeoutError."""
    began_s = time.monotonic()
    async with asyncio.timeout(within_s):
        while True:
            answer = condition()
            if answer is True or (not isinstance(answer, bool) and await answer):
                return time.monotonic() - began_s
            await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    """True if no process has this pid (a zombie is none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


def tasks(count: int) -> TaskSet:
    return TaskSet.of(0, count)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Rig]:
    """Three peers that vote; all processes are gone afterwards."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = _before(folder)
    before.touch()
    command = (*_COMMAND, str(before), *START)
    with LocalCluster(folder, command=command, environ=environ) as cluster:

        async def start() -> None:
            for name in NAMES:
                cluster.start(name, slots=SLOTS)
                await cluster.wait_listening(name)
            await Rig(cluster).heal()

        asyncio.run(start())
        yield Rig(cluster)


async def over_a_killed_leader(
    rig: Rig,
    work: Callable[[int, asyncio.Event], Awaitable[None]],
    answered: Callable[[], int],
    clients: int,
    answers: int,
) -> None:
    """So many clients work until they are told to stop: so many answers before their leader is
    killed, as many without it, and as many once it is back."""

    async def more() -> None:
        wanted = answered() + answers
        await until(lambda: answered() >= wanted)

    stop = asyncio.Event()

    async def one(number: int) -> None:
        await work(number, stop)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(one(number))
        await more()
        leader = await rig.leader()
        rig.cluster.kill(leader)
        await more()
        rig.cluster.restart(leader)
        await more()
        stop.set()

"""Four real peers, three of which vote, and a look at what is on the disk of each.

With a fourth one both holders of a large result can be killed, and a majority is left to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.client.results import results_of
from p2psched.client.session import Session
from p2psched.model.blob import BlobRef
from p2psched.model.ids import JobId
from p2psched.model.job import JobState
from p2psched.store.folder import read_secret_file
from tests.cluster import LiveCluster
from tests.integration.rig import until

VOTERS: Final = ("a", "b", "c")
LEARNER: Final = "d"


class Disks:
    """The cluster; `cluster` has its processes."""

    def __init__(self, cluster: LiveCluster) -> None:
        self.cluster = cluster

    def client(self, name: str | None = None) -> Client:
        return self.cluster.client(name)

    @asynccontextmanager
    async def only(self, name: str, *, patience_s: float = 30.0) -> AsyncIterator[Session]:
        """Asks this peer and no other."""
        peer = self.cluster.peers[name]
        secret = read_secret_file(peer.data / "secret")
        session = Session([peer.address], secret=secret, patience_s=patience_s)
        try:
            yield session
        finally:
            await session.__aexit__()

    def path(self, name: str, ref: BlobRef) -> Path:
        digest = ref.digest.hex()
        return self.cluster.peers[name].data / "blobs" / digest[:2] / digest

    def holders(self, ref: BlobRef) -> list[str]:
        """Peers, dead or alive, that have the whole file."""
        return [name for name in self.cluster.peers if self._size(name, ref) == ref.size]

    def live_holders(self, ref: BlobRef) -> list[str]:
        return [name for name in self.holders(ref) if self._runs(name)]

    def _size(self, name: str, ref: BlobRef) -> int:
        try:
            return self.path(name, ref).stat().st_size
        except FileNotFoundError:
            return -1

    def _runs(self, name: str) -> bool:
        return self.cluster.peers[name].process.poll() is None

    async def heal(self) -> None:
        """All run, and the ledger knows it."""
        dead = [name for name in self.cluster.peers if not self._runs(name)]
        for name in dead:
            self.cluster.restart_nowait(name)
        for name in dead:
            self.cluster.wait_ready(self.cluster.peers[name])
        await self.wait_alive(*self.cluster.peers)

    async def wait_alive(self, *names: str) -> None:
        """Until the ledger holds these alive, in their present processes, and the others dead."""
        pids = {self.cluster.peers[name].pid for name in names}
        async with self.client(names[0]) as client:

            async def as_told() -> bool:
                views = await client.peers()
                dead = [view for view in views if view.state == "dead"]
                alive = {view.info.pid for view in views if view.state == "alive"}
                return alive == pids and len(dead) == len(views) - len(pids)

            await until(as_told)

    async def wait_copied(self, job: Job, *, copies: int = 2) -> None:
        """Until no large result is short of copies, to the ledger and to the disks."""
        refs = await refs_of(job)

        async def copied() -> bool:
            view = await job.show()
            disks = all(len(self.live_holders(ref)) >= copies for ref in refs.values())
            return view.short == 0 and disks

        await until(copied)

    async def job(self, job: JobId) -> None:
        """Wait for a job that another client submitted."""
        async with self.client() as client:
            assert (await (await client.job(job)).wait()).state is JobState.SUCCEEDED


async def refs_of(job: Job) -> dict[int, BlobRef]:
    """The blobs of an ended job's values by task; nothing is downloaded."""
    found: dict[int, BlobRef] = {}
    async for page in job.pages():
        for segment in page.segments:
            for result in results_of(job.id, segment):
                (ref,) = result.value_refs
                found[result.index] = BlobRef(*ref)
    return found


@contextmanager
def running_disks(folder: Path) -> Iterator[Disks]:
    with LiveCluster(folder) as cluster:
        for name in VOTERS:
            cluster.start(name, slots=1)
        cluster.start(LEARNER, slots=1, options=["--no-vote"])
        disks = Disks(cluster)
        asyncio.run(disks.heal())
        yield disks

"""Each voter is replaced again and again, by being killed, cut off, or removed for good, while jobs
run and links are bad (P1, P4, P6, P12, P13). How long each took is printed, and not judged."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.model.peer_messages import PeerView
from tests.cluster import LiveCluster
from tests.integration.load import load
from tests.integration.rig import until
from tests.network.switch import Switch, Weather, why_not

NAMES: Final = ("a", "b", "c", "d")  # three voters and a spare
VOTERS: Final = 3
TIMES: Final = int(os.environ.get("P2PSCHED_REPLACEMENTS", "20"))  # of each peer, as a voter
WITHIN_S: Final = 60.0
EVERY_S: Final = 1.0  # between two jobs: each is looked at afterwards
PORT: Final = 7420
OPTIONS: Final = ("--insecure", "--replace-after", "3s")
WAYS: Final = ("kill", "cut", "remove")
BAD: Final = Weather(delay_s=0.01, jitter_s=0.01, loss=0.02)
_REASON: Final = why_not()

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(300 + 120 * TIMES),
    pytest.mark.skipif(bool(_REASON), reason=_REASON),
]


class Group:
    """Four peers, each behind the switch."""

    def __init__(self, cluster: LiveCluster, switch: Switch) -> None:
        self.cluster = cluster
        self.switch = switch
        self.rng = random.Random(20)
        self.old: set[str] = set()  # identities that were removed

    async def views(self) -> dict[str, PeerView]:
        """Of who belongs, by id. The test reaches all peers, whatever is cut."""
        async with self.cluster.client() as client:
            return {view.info.peer: view for view in await client.peers()}

    async def voters(self) -> list[str]:
        """Names."""
        views = await self.views()
        assert not self.old & {p for p, view in views.items() if view.role in {"leader", "voter"}}
        names = {peer.id: name for name, peer in self.cluster.peers.items()}
        return [names[p] for p, view in views.items() if view.role in {"leader", "voter"}]

    async def is_whole(self) -> bool:
        """Three vote, and all four are there."""
        views = await self.views()
        alive = {p for p, view in views.items() if view.state == "alive"}
        ours = {peer.id for peer in self.cluster.peers.values()}
        return ours <= alive and len(await self.voters()) == VOTERS

    async def replace(self, name: str, way: str) -> float:
        """Until another peer votes in its place; then it is back. The seconds until then."""
        peer, others = self.cluster.peers[name], [other for other in NAMES if other != name]
        self.switch.default = BAD if self.rng.random() < 0.5 else Weather()
        match way:
            case "kill":
                self.cluster.kill(name)
            case "cut":
                self.switch.cut_off(name)
            case _:
                one = self.rng.choice(others)
                done = await asyncio.to_thread(
                    self.cluster.run, "peer", "remove", peer.id, *self._through(one)
                )
                assert done.returncode == 0, done.stderr
                self.old.add(peer.id)
                assert await asyncio.to_thread(peer.process.wait, WITHIN_S) == 5

        async def is_replaced() -> bool:
            voters = await self.voters()
            return name not in voters and len(voters) == VOTERS

        took_s = await until(is_replaced, within_s=WITHIN_S)
        await self._back(name, way)
        return took_s

    async def _back(self, name: str, way: str) -> None:
        self.switch.heal()
        if way != "cut":
            await asyncio.to_thread(self.cluster.restart, name)
        await until(self.is_whole, within_s=WITHIN_S)

    def _through(self, name: str) -> tuple[str, ...]:
        secret = self.cluster.folder / "secret"
        return ("--peer", self.cluster.peers[name].address, "--secret-file", str(secret))


@pytest.fixture
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    folder = tmp_path_factory.mktemp("replacements")
    with Switch(NAMES, subnet=98, seed=11) as switch, LiveCluster(folder) as cluster:
        secret = folder / "secret"
        for name in NAMES:
            cluster.before[name] = switch.inside(name)
            known = ["--secret-file", str(secret)] if name != "a" else []
            options = [*OPTIONS, "--anew", *known]
            cluster.start(name, slots=1, listen=f"{switch.address(name)}:{PORT}", options=options)
            if name == "a":
                secret.touch(mode=0o600)
                secret.write_bytes((cluster.peers["a"].data / "secret").read_bytes())
        yield Group(cluster, switch)


def test_every_voter_is_replaced_many_times_under_load_and_partitions(group: Group) -> None:
    took_s: dict[str, list[float]] = {way: [] for way in WAYS}
    left = dict.fromkeys(NAMES, TIMES)

    async def story() -> None:
        await until(group.is_whole)
        addresses = [peer.address for peer in group.cluster.peers.values()]
        client = Client(addresses[0], runtime_dir=group.cluster.runtime_dir)
        async with load(client, every_s=EVERY_S) as running:
            while any(left.values()):
                # Whoever has the most ahead among those that vote just now; the spare's turn comes.
                name = max(await group.voters(), key=lambda name: (left[name], name))
                way = WAYS[sum(map(len, took_s.values())) % len(WAYS)]
                accepted = len(running)
                took_s[way].append(await group.replace(name, way))
                left[name] = max(0, left[name] - 1)
                await until(lambda before=accepted: len(running) > before)  # type: ignore[misc]
        async with group.cluster.client() as other:
            await running.verify(other)
        print(f"{len(running)} jobs, none lost, none twice")

    asyncio.run(story())
    for way, times_s in took_s.items():
        times_s.sort()
        print(
            f"{way}: {len(times_s)} replaced, p50 {times_s[len(times_s) // 2]:.1f} s, "
            f"at most {times_s[-1]:.1f} s"
        )
    assert not any(left.values())

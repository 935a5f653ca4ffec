"""Peers in network namespaces of their own, and a network between them that fails (P1, L4, L5)."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.client.functions import calls, pack
from p2psched.client.session import Session
from p2psched.model.errors import Unavailable
from p2psched.model.ids import JobId, new_id
from p2psched.model.messages import GetStatus, JobAccepted, Submit
from p2psched.model.status_messages import StatusAnswer
from p2psched.store.folder import read_secret_file
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.load import Load, load
from tests.integration.rig import until
from tests.network.behind import NAMES, behind_a_switch
from tests.network.switch import Switch, Weather, why_not

# How long a bad link is watched for changes of the leader. The promise is of 600.
WATCH_S: Final = float(os.environ.get("P2PSCHED_WATCH_S", "30"))
WATCHED_JOBS: Final = 600  # at most, for each is judged afterwards
AFTER_HEAL_S: Final = 5.0  # L5
_REASON: Final = why_not()

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(300 + WATCH_S),
    pytest.mark.skipif(bool(_REASON), reason=_REASON),
]


class Net:
    """Three voters, each behind the switch; the test stands beside it and reaches all of them."""

    def __init__(self, cluster: LiveCluster, switch: Switch) -> None:
        self.cluster = cluster
        self.switch = switch

    def client(self, name: str | None = None) -> Client:
        return self.cluster.client(name)

    def only(self, name: str, *, patience_s: float = 10.0) -> Session:
        """Asks this peer and no other."""
        secret = read_secret_file(self.cluster.peers["a"].data / "secret")
        return Session([self.cluster.peers[name].address], secret=secret, patience_s=patience_s)

    async def status(self, name: str) -> StatusAnswer:
        session = self.only(name)
        try:
            return await session.call(GetStatus(), StatusAnswer)
        finally:
            await session.__aexit__()

    async def statuses(self) -> dict[str, StatusAnswer]:
        return {name: await self.status(name) for name in NAMES}

    async def leader(self) -> str:
        """Whom a majority follows."""
        found = ""

        async def is_there() -> bool:
            nonlocal found
            seen = await self.statuses()
            names = {self.cluster.peers[name].id: name for name in NAMES}
            votes = Counter(names[s.leader] for s in seen.values() if s.leader and s.quorum)
            leader, count = votes.most_common(1)[0] if votes else ("", 0)
            found = leader
            return count >= 2 and seen[leader].role == "leader"

        await until(is_there)
        return found

    async def agree(self) -> None:
        """P4: one state at one index, at all of them."""

        async def as_one() -> bool:
            seen = (await self.statuses()).values()
            return len({(s.applied_index, s.state_hash) for s in seen}) == 1

        await until(as_one)

    async def verify(self, running: Load) -> None:
        async with self.client() as client:
            await running.verify(client)
        await self.agree()

    async def accepts_nothing(self, name: str) -> None:
        """A peer that reaches no majority."""
        spec = pack(work.square, calls([1]), modules="none").spec
        session = self.only(name, patience_s=3)
        try:
            with pytest.raises(Unavailable):
                await session.call(Submit(JobId(new_id(random.SystemRandom())), spec), JobAccepted)
        finally:
            await session.__aexit__()

    async def heal(self) -> None:
        """All of them vote, and are alive to the ledger."""
        self.switch.heal()

        async def healed() -> bool:
            async with self.client() as client:
                views = await client.peers()
            good = [view for view in views if view.state == "alive" and view.role != "learner"]
            return len(good) == len(NAMES)

        await until(healed)

    async def stays(self, leader: str, term: int) -> None:
        """For a while nobody else leads, and no term rises anywhere."""
        deadline_s = asyncio.get_running_loop().time() + WATCH_S
        while asyncio.get_running_loop().time() < deadline_s:
            seen = await self.statuses()
            assert seen[leader].role == "leader", seen
            assert {status.term for status in seen.values()} == {term}, seen
            await asyncio.sleep(0.1)  # no more: a term that rose stays so


def watched(client: Client) -> AbstractAsyncContextManager[Load]:
    return load(client, every_s=WATCH_S / WATCHED_JOBS)


@pytest.fixture(scope="module")
def _shared_net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with behind_a_switch(tmp_path_factory.mktemp("network")) as (cluster, switch):
        yield Net(cluster, switch)


@pytest.fixture
def net(_shared_net: Net) -> Iterator[Net]:
    asyncio.run(_shared_net.heal())
    yield _shared_net
    _shared_net.switch.heal()


def test_the_majority_goes_on_without_its_leader_and_the_minority_accepts_nothing(
    net: Net,
) -> None:
    async def story() -> None:
        old = await net.leader()
        async with load(net.client()) as running:
            await until(lambda: len(running) >= 10)
            net.switch.cut_off(old)
            await net.accepts_nothing(old)
            before = len(running)
            await until(lambda: len(running) >= before + 10)
            new = await net.leader()
            assert new != old
            assert (await net.status(old)).role != "leader", "it has heard no majority for long"
            net.switch.heal()
            await until(lambda: len(running) >= before + 20, within_s=AFTER_HEAL_S)
        await net.verify(running)

    asyncio.run(story())


def test_who_hears_nothing_deposes_nobody(net: Net) -> None:
    """One way only: its own words arrive."""

    async def story() -> None:
        leader = await net.leader()
        term = (await net.status(leader)).term
        deaf = next(name for name in NAMES if name != leader)
        for other in NAMES:
            if other != deaf:
                net.switch.cut_one_way(other, deaf)
        async with watched(net.client(leader)) as running:
            await net.stays(leader, term)
        net.switch.heal()
        await net.verify(running)
        assert (await net.status(leader)).term == term

    asyncio.run(story())


def test_who_is_not_heard_deposes_nobody(net: Net) -> None:
    async def story() -> None:
        leader = await net.leader()
        term = (await net.status(leader)).term
        mute = next(name for name in NAMES if name != leader)
        for other in NAMES:
            if other != mute:
                net.switch.cut_one_way(mute, other)
        async with watched(net.client(leader)) as running:
            await net.stays(leader, term)
        net.switch.heal()
        await net.verify(running)

    asyncio.run(story())


def test_a_bridge_changes_nothing(net: Net) -> None:
    """Two that don't see each other, the leader one of them, and a third that both see."""

    async def story() -> None:
        leader = await net.leader()
        term = (await net.status(leader)).term
        other = next(name for name in NAMES if name != leader)
        net.switch.cut_between(leader, other)
        async with watched(net.client(leader)) as running:
            await net.stays(leader, term)
        net.switch.heal()
        await net.verify(running)

    asyncio.run(story())


def test_a_link_that_flaps_deposes_nobody(net: Net) -> None:
    async def story() -> None:
        leader = await net.leader()
        term = (await net.status(leader)).term
        flapping = next(name for name in NAMES if name != leader)

        async def flap() -> None:
            rng = random.Random(11)
            while True:
                net.switch.cut_off(flapping)
                await asyncio.sleep(rng.uniform(0.1, 1.5))
                net.switch.heal()
                await asyncio.sleep(rng.uniform(0.1, 1.5))

        async with watched(net.client(leader)) as running, asyncio.TaskGroup() as group:
            flaps = group.create_task(flap())
            await net.stays(leader, term)
            flaps.cancel()
        net.switch.heal()
        await net.verify(running)

    asyncio.run(story())


def test_bad_weather_loses_and_doubles_nothing(net: Net) -> None:
    async def story() -> None:
        leader = await net.leader()
        term = (await net.status(leader)).term
        net.switch.default = Weather(
            delay_s=0.02, jitter_s=0.015, loss=0.02, doubled=0.05, hurried=0.1
        )
        async with load(net.client()) as running:
            await until(lambda: len(running) >= 100, within_s=120)
        await net.verify(running)
        counts = net.switch.counts
        assert min(counts.lost, counts.doubled) > 0
        assert (await net.status(leader)).term == term

    asyncio.run(story())

"""`client.peer`: who belongs to a cluster of real peers, who votes, and who gets tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2psched.client.client import Client
from p2psched.client.members import find_peer
from p2psched.model.commands import PeerInfo
from p2psched.model.errors import NotFound, Refused, UsageError
from p2psched.model.ids import PeerId
from p2psched.model.peer_messages import PeerView
from tests.client import work
from tests.cluster import LiveCluster
from tests.integration.rig import until

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


async def roles(client: Client) -> dict[str, str]:
    return {view.info.name: view.role for view in await client.peers()}


async def three_vote(client: Client) -> bool:
    return sum(role != "learner" for role in (await roles(client)).values()) == 3


def test_peers_are_promoted_demoted_drained_and_removed_from_python(tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        await until(lambda: three_vote(client))
        (spare,) = [name for name, role in (await roles(client)).items() if role == "learner"]
        follower = next(name for name, role in (await roles(client)).items() if role == "voter")

        assert (await client.peer.voters(3)).wanted == 3
        assert (await client.peer.voters(3)).changed is False
        with pytest.raises(UsageError):
            await client.peer.voters(4)
        done = await client.peer.promote(spare)
        assert (done.name, done.role, done.changed) == (spare, "voter", True)
        assert (await client.peer.promote(spare)).changed is False
        done = await client.peer.demote(follower)
        assert (done.role, done.changed) == ("learner", True)
        await until(lambda: three_vote(client))

        seen: list[str] = []

        def look(view: PeerView, views: Sequence[PeerView]) -> None:
            assert len(views) == 4
            seen.append(view.drain)

        tasks = [client.submit(work.square, number) for number in range(100)]
        async with asyncio.timeout(60):
            view = await client.peer.drain(follower, look=look)
        assert view.drain == "drained"
        assert set(seen) <= {"draining"}
        assert await client.gather(tasks) == [number * number for number in range(100)]
        assert (await client.peer.drain(follower, undo=True)).drain == ""
        assert (await client.peer.drain(follower, wait=False)).drain in {"draining", "drained"}

        done = await client.peer.remove(follower)
        assert (done.name, done.role, done.changed) == (follower, "removed", True)
        assert (await client.peer.remove(done.peer)).changed is False
        with pytest.raises(NotFound):
            await client.peer.demote("nobody")
        views = [view for view in await client.peers() if view.info.name != follower]
        assert all(view.lag is not None for view in views)

    with LiveCluster(tmp_path) as cluster:
        for name in "abcd":
            cluster.start(name)
        cluster.ask(story)


def test_the_last_voter_is_not_removed(tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(Refused, match="is the only voter"):
            await client.peer.remove("a")

    with LiveCluster(tmp_path) as cluster:
        cluster.start("a")
        cluster.ask(story)


def view(peer: str, name: str, state: str = "alive") -> PeerView:
    return PeerView(PeerInfo(PeerId(peer), 1, name, "", 0, 1, "", ""), "voter", state, 0, 0)


def test_a_peer_is_named_by_its_name_or_the_digits_of_its_id() -> None:
    old, new, other = view("1a2b3c", "a", "dead"), view("1a2bff", "a"), view("cafe00", "b")
    views = [old, new, other]
    assert find_peer(views, "a") is new, "the one that is there"
    assert find_peer(views, "1a2b3c") is old
    assert find_peer(views, "CAFE") is other
    for text in ("c", "caf", "nobody"):
        with pytest.raises(NotFound, match="is no peer"):
            find_peer(views, text)
    with pytest.raises(NotFound, match="fits 2 peers"):
        find_peer([old, view("1a2bee", "a", "dead")], "a")

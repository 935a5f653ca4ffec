"""Gossip between real processes: who is gone is suspect before it is dead, gets nothing new, and is
there again as soon as it answers; who is only slow is not given up."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest

from p2psched.cli.demo_watch import statuses
from p2psched.client.client import Client
from p2psched.model.status_messages import GossipStatus
from tests.cluster import LiveCluster
from tests.integration.rig import NAMES, Rig, tasks, until

pytestmark = pytest.mark.process

# A probe finds it silent (1 s, and two others may come before it), and it has 4 s to refute.
SUSPECT_S = 6.0
DEAD_S = 12.0
STARVED_S = 15.0


async def gossip_of(rig: Rig, client: Client, name: str) -> str:
    return (await rig.views(client))[name].gossip


async def healthy(rig: Rig) -> None:
    """All hear all."""

    async def all_alive() -> bool:
        found = [status.gossip for status in (await statuses(rig.cluster)).values()]
        return len(found) == len(NAMES) and all(
            said is not None and said.alive == len(NAMES) - 1 for said in found
        )

    await until(all_alive)


@pytest.mark.smoke
def test_a_stopped_peer_is_suspect_then_dead_and_gets_nothing_new(rig: Rig) -> None:
    side, again = rig.side("gossip-stopped"), rig.side("gossip-back")

    async def story() -> None:
        await healthy(rig)
        leader, victim = await rig.leader(), await rig.follower()
        peer = rig.cluster.peers[victim]
        async with rig.client(leader) as client:

            async def doubted() -> bool:
                return await gossip_of(rig, client, victim) in {"suspect", "dead"}

            async def dead() -> bool:
                return await gossip_of(rig, client, victim) == "dead"

            async def alive() -> bool:
                return await gossip_of(rig, client, victim) == "alive"

            peer.signal(signal.SIGSTOP)
            try:
                await until(doubted, within_s=SUSPECT_S)
                job = await client.submit_program(side.argv, tasks=tasks(12))
                await until(lambda: len(side.starts()) >= 4)  # both slots of both others
                await until(dead, within_s=DEAD_S)
                owners = {owner for owner, _ in (await job.show()).owners}
                assert (await rig.views(client))[victim].info.peer not in owners
                assert not side.on(victim)
            finally:
                peer.signal(signal.SIGCONT)
            side.let_go()
            assert (await job.wait()).succeeded == 12
            await until(alive)
            again.let_go()
            await (await client.submit_program(again.argv, tasks=tasks(24))).wait()
            assert again.on(victim), "it is used again"

    asyncio.run(story())


def test_a_peer_that_is_only_slow_is_not_given_up(rig: Rig) -> None:
    """It runs for a third of each second."""

    async def story() -> None:
        await healthy(rig)
        leader, victim = await rig.leader(), await rig.follower()
        peer = rig.cluster.peers[victim]
        seen = set()
        loop = asyncio.get_running_loop()
        async with rig.client(leader) as client:
            end = loop.time() + STARVED_S
            while loop.time() < end:
                peer.signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(0.67)  # what is tested, not a wait for something
                finally:
                    peer.signal(signal.SIGCONT)
                await asyncio.sleep(0.33)
                views = await rig.views(client)
                seen |= {(name, view.gossip) for name, view in views.items()}
        assert (victim, "alive") in seen
        assert "dead" not in {state for _, state in seen}

    asyncio.run(story())


def test_who_stops_says_so(live: LiveCluster) -> None:
    live.start("a")
    live.start("b")
    rig_client = live.client("a")

    async def story() -> None:
        async with rig_client as client:

            async def gossip() -> str:
                return next(v.gossip for v in await client.peers() if v.info.name == "b")

            async def is_there() -> bool:
                return await gossip() == "alive"

            await until(is_there)
            await asyncio.to_thread(live.stop, "b")

            async def has_left() -> bool:
                return await gossip() == "left"

            await until(has_left)
            status = (await client.status()).gossip
            assert status is not None
            assert (status.left, status.dead) == (1, 0)

    asyncio.run(story())


def test_a_peer_without_datagrams_works_and_says_so(live: LiveCluster) -> None:
    live.start("a", slots=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        live.start("b", listen=f"127.0.0.1:{port}")

        async def status_of(name: str) -> GossipStatus:
            async with live.client(name) as client:
                status = (await client.status()).gossip
                assert status is not None
                return status

        async def story() -> None:
            async def probed() -> bool:
                found = [await status_of(name) for name in ("a", "b")]
                return all(status.carried >= 6 and status.alive == 1 for status in found)

            await until(probed)  # over links, several times, and nobody doubts the other
            deaf = await status_of("b")
            assert "in use" in deaf.problem
            assert (deaf.suspect, deaf.dead, deaf.datagrams_sent) == (0, 0, 0)
            async with live.client("a") as client:
                assert await client.submit("operator:neg", 7) == -7  # b alone has slots

        asyncio.run(story())
    assert "no-datagrams" in live.peers["b"].log

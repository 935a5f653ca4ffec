"""Watching peers from outside, each over a connection of its own that never turns to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from p2psched.client.session import Session
from p2psched.demo.cluster import LocalCluster
from p2psched.model.errors import Unavailable
from p2psched.model.messages import GetStatus
from p2psched.model.status_messages import StatusAnswer
from p2psched.store.folder import read_secret_file

POLL_S: Final = 0.02
ANSWER_PATIENCE_S: Final = 1.0
LEADER_PATIENCE_S: Final = 30.0
AGREEMENT_PATIENCE_S: Final = 10.0
HOW_MEASURED: Final = (
    f"from kill -9 until a survivor, asked for its status every {POLL_S * 1000:.0f} ms from "
    "outside, said that it leads"
)

Ask = Callable[[], Awaitable[StatusAnswer | None]]


@asynccontextmanager
async def watching(address: str, *, secret: bytes) -> AsyncIterator[Ask]:
    """A way to ask the peer at an address for its status, None whenever it does not answer."""
    session = Session([address], secret=secret, patience_s=0.0)

    async def ask() -> StatusAnswer | None:
        try:
            async with asyncio.timeout(ANSWER_PATIENCE_S):
                return await session.call(GetStatus(), StatusAnswer)
        except (Unavailable, TimeoutError):
            return None

    try:
        yield ask
    finally:
        await session.__aexit__()


async def wait_leader(cluster: LocalCluster, *, but: str | None = None) -> tuple[str, StatusAnswer]:
    """Name and status of the first peer that says it leads, `but` left out. Each peer is asked on
    its own, so that a slow answer of one delays no other. Raises Unavailable after 30 s."""
    secret = read_secret_file(cluster.secret_path)
    asked = {n: p.address for n, p in cluster.peers.items() if p.runs and n != but}
    found: list[tuple[str, StatusAnswer]] = []

    async def ask_for_ever(name: str, address: str) -> None:
        async with watching(address, secret=secret) as ask:
            while not found:
                status = await ask()
                if status is not None and status.role == "leader":
                    found.append((name, status))
                await asyncio.sleep(POLL_S)

    try:
        async with asyncio.timeout(LEADER_PATIENCE_S), asyncio.TaskGroup() as group:
            for name, address in asked.items():
                group.create_task(ask_for_ever(name, address))
    except TimeoutError:
        raise Unavailable(
            f"none of {', '.join(asked)} led within {LEADER_PATIENCE_S:.0f} s; see their logs in "
            f"{cluster.folder}"
        ) from None
    return found[0]


async def statuses(cluster: LocalCluster) -> dict[str, StatusAnswer]:
    """Name -> status, of the peers that answer."""
    secret = read_secret_file(cluster.secret_path)
    found = {}
    for name, peer in cluster.peers.items():
        if peer.runs:
            async with watching(peer.address, secret=secret) as ask:
                status = await ask()
            if status is not None:
                found[name] = status
    return found


async def wait_agreement(cluster: LocalCluster) -> bool:
    """True once all peers answer with one state hash at one applied index, False if that does not
    happen within some seconds (or never: at one index and with different hashes)."""
    running = sum(peer.runs for peer in cluster.peers.values())
    deadline = asyncio.get_running_loop().time() + AGREEMENT_PATIENCE_S
    while asyncio.get_running_loop().time() < deadline:
        found = (await statuses(cluster)).values()
        if len(found) == running and len({s.applied_index for s in found}) == 1:
            return len({s.state_hash for s in found}) == 1
        await asyncio.sleep(POLL_S)
    return False

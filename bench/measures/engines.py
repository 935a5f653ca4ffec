"""The same cluster with its ledger carried by the embedded engine and by raftos: commits, and how
long a death of the leader is felt. Each contender has the cluster for itself, though the embedded
one's is up all the time: an idle cluster costs little."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from bench.cluster import Cluster
from bench.measures.ledger import COUNTS, commits
from bench.measures.recovery import leader_kill
from bench.registry import OURS, Found, Measure, Stage, Unsupported
from p2psched.demo.static import free_addresses
from p2psched.net.auth import new_secret

RAFTOS: Final = "raftos"
IN_FLIGHT: Final = (1, 8, 64)


class StaticCluster(Cluster):
    """All peers are started at once: they need a majority from the first moment."""

    def __init__(self, slots: Sequence[int]) -> None:
        super().__init__(slots)
        self.addresses = free_addresses(len(slots))
        self._secret = self.folder / "group-secret"
        self._secret.touch(mode=0o600)
        self._secret.write_text(new_secret().hex())

    async def start(self) -> None:
        self.processes += [self._start_peer(number) for number in range(len(self.slots))]
        await self.wait_whole(len(self.slots))

    def _joining(self, number: int) -> list[str]:
        if len(self.processes) > number:
            return []
        group = [word for address in self.addresses for word in ("--group", address)]
        return ["--ledger", "raftos", *group, "--secret-file", str(self._secret)]


@asynccontextmanager
async def _on_raftos(stage: Stage) -> AsyncIterator[Stage]:
    if importlib.util.find_spec("raftos") is None:
        raise Unsupported("raftos is not installed: make setup-raftos")
    cluster = StaticCluster((1, 0, 0))
    try:
        await cluster.start()
        async with cluster.client() as client:
            yield replace(stage, cluster=cluster, client=client)
    finally:
        cluster.stop()


async def raftos_commits(stage: Stage, *, in_flight: int) -> Mapping[str, float]:
    async with _on_raftos(stage) as other:
        return await commits(other, in_flight=in_flight)


async def raftos_leader_kill(stage: Stage) -> Found:
    async with _on_raftos(stage) as other:
        return await leader_kill(other)


def _measure(
    name: str,
    what: str,
    ours: Callable[[Stage], Awaitable[Found]],
    theirs: Callable[[Stage], Awaitable[Found]],
) -> Measure:
    return Measure(
        f"engine_{name}", f"{what}, 3 peers", {OURS: ours, RAFTOS: theirs}, slots=(1, 0, 0)
    )


assert set(IN_FLIGHT) <= set(COUNTS)
MEASURES: Final = (
    *(
        _measure(
            f"commits_{count}",
            f"commits of the ledger on each engine, {count} in flight",
            partial(commits, in_flight=count),
            partial(raftos_commits, in_flight=count),
        )
        for count in IN_FLIGHT
    ),
    _measure(
        "leader_kill", "from kill -9 of the leader to a submit", leader_kill, raftos_leader_kill
    ),
)

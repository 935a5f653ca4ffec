"""Small jobs, one after another, while something goes wrong; afterwards each of them is judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.judge import judge
from p2psched.client.client import Client, Job
from tests.integration import work

TASKS: Final = 3


@dataclass(slots=True)
class Load:
    """What was accepted so far. Clear `wanted` where nothing is about to go wrong: each job is
    looked at afterwards."""

    accepted: list[Job] = field(default_factory=list)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    every_s: float = 0.0  # between one that was accepted and the next

    async def run(self, client: Client) -> None:
        self.wanted.set()
        while True:
            await self.wanted.wait()
            self.accepted.append(await client.map(work.square, range(TASKS)))
            await asyncio.sleep(self.every_s)

    def __len__(self) -> int:
        return len(self.accepted)

    async def verify(self, client: Client) -> None:
        """Nothing accepted is lost, nothing has two results (P1, P6)."""
        values = [number * number for number in range(TASKS)]
        for known in self.accepted:
            await judge(await client.job(known.id), values)


@asynccontextmanager
async def load(client: Client, *, every_s: float = 0.0) -> AsyncIterator[Load]:
    """Jobs through this client, which is not open yet, until the block is left."""
    running = Load(every_s=every_s)
    async with client, asyncio.TaskGroup() as group:
        submitting = group.create_task(running.run(client))
        yield running
        submitting.cancel()

"""Small jobs, one after another, while something goes wrong; afterwards each of them is judged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from p2psched.client.client import Client, Job
from p2psched.model.commands import Recorded
from p2psched.model.job import JobState
from tests.integration import work

TASKS: Final = 3


@dataclass(slots=True)
class Load:
    """What was accepted so far, and the longest time between two answers."""

    accepted: list[Job] = field(default_factory=list)
    gap_s: float = 0.0

    async def run(self, client: Client) -> None:
        last_s = time.monotonic()
        while True:
            self.accepted.append(await client.map(work.square, range(TASKS)))
            now_s = time.monotonic()
            self.gap_s, last_s = max(self.gap_s, now_s - last_s), now_s

    def __len__(self) -> int:
        return len(self.accepted)

    async def verify(self, client: Client) -> None:
        """Nothing accepted is lost, nothing has two results (P1, P6)."""
        for known in self.accepted:
            job = await client.job(known.id)
            view = await job.wait()
            assert (view.state, view.succeeded) == (JobState.SUCCEEDED, TASKS)
            assert await job.results() == [number * number for number in range(TASKS)]
            recorded: Counter[int] = Counter()
            for stamped in (await job.history()).events:
                if isinstance(stamped.event, Recorded):
                    recorded.update(stamped.event.segment.tasks)
            assert recorded == Counter(range(TASKS)), job


@asynccontextmanager
async def load(client: Client) -> AsyncIterator[Load]:
    """Jobs through this client, which is not open yet, until the block is left."""
    running = Load()
    async with client, asyncio.TaskGroup() as group:
        submitting = group.create_task(running.run(client))
        yield running
        submitting.cancel()

"""A leader is lost, again and again: how long a client waits for its next submit, and whether all
that was accepted ended as it must. For the benchmark, and for a test that judges only the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from bench.cluster import Cluster
from bench.judge import judge
from bench.work import work
from p2psched import Client
from p2psched.client.job import Job

AROUND: Final = 20  # submits that are accepted before a leader stops, and after it has
_SPIN: Final = "while True: pass"


class Losses:
    """Use as an async context manager: at its end every accepted job is judged."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.accepted: list[Job] = []
        self._client = cluster.client()

    async def __aenter__(self) -> Losses:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self._verify(self._client)
        finally:
            await self._client.__aexit__()

    async def _verify(self, client: Client) -> None:
        for known in self.accepted:
            await judge(await client.job(known.id), [work(1)])

    async def kill(self) -> float:
        """Seconds from kill -9 of the leader until a submit of the client is accepted. What was
        accepted just before it died is among what is judged."""
        number = await self.cluster.number_of("leader")
        await self._submit()
        started = time.perf_counter()
        self.cluster.kill(self.cluster.processes[number].pid)
        await self._submit()
        took_s = time.perf_counter() - started
        await self._back(number)
        return took_s

    async def stop(self) -> float:
        """Milliseconds, at most, between two accepted submits while the leader stops by SIGTERM."""
        number = await self.cluster.number_of("leader")
        process = self.cluster.processes[number]
        accepted_s: list[float] = []

        async def submit_all() -> None:
            while True:
                await self._submit()
                accepted_s.append(time.perf_counter())

        async def more() -> None:
            wanted = len(accepted_s) + AROUND
            while len(accepted_s) < wanted:  # noqa: ASYNC110 (a neighbour appends to it)
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            submitting = group.create_task(submit_all())
            await more()
            process.send_signal(signal.SIGTERM)
            while process.poll() is None:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.001)
            await more()
            submitting.cancel()
        assert process.returncode == 0, process.returncode
        await self._back(number)
        return max(b - a for a, b in pairwise(accepted_s)) * 1000

    async def _submit(self) -> None:
        self.accepted.append(await self._client.map("bench.work:work", [1]))

    async def _back(self, number: int) -> None:
        self.cluster.restart(number)
        await self.cluster.wait_whole(len(self.cluster.processes))
        await self.cluster.wait_agreed()


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """So many processes that only compute, at the priority of everybody."""
    spinning = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()

"""A client of very many small jobs, while leaders are killed and links are cut (P1, P6).

`P2PSCHED_LEDGER_JOBS=100000` is what is promised: a leader is killed each minute and links are cut
each 90 s then, for some ten minutes or more; with less both come as much faster as it is shorter.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from bench.judge import judge_history
from p2psched.client import events
from p2psched.client.client import Client
from p2psched.model.event_messages import EventFilter, EventRecord, Place
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.rig import until
from tests.integration.storms import Fleet, leader_of
from tests.network.behind import NAMES, behind_a_switch, cut_at_random, fleet_of
from tests.network.switch import Switch, why_not

JOBS: Final = int(os.environ.get("P2PSCHED_LEDGER_JOBS", "5000"))
JOBS_ALL: Final = 100_000
CLIENTS: Final = 16
SHARE: Final = min(1.0, JOBS / JOBS_ALL)
KILL_EVERY_S: Final = 60 * SHARE
CUT_EVERY_S: Final = 90 * SHARE
AWAY_S: Final = (1.0, 5.0)  # from the kill to the start, and how long a cut lasts
PATIENT_S: Final = 60.0
BACK_S: Final = 60.0  # until who was started again is alive to the others, at most
TOLD_S: Final = 60.0  # until the event log has told of all, at most
LOOKED_AT: Final = 1_000  # jobs whose history is read afterwards
_REASON: Final = why_not()

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(600 + JOBS / 20),
    pytest.mark.skipif(bool(_REASON), reason=_REASON),
]


@dataclass(slots=True)
class Book:
    """What the client was told, and what the event log has told meanwhile."""

    ended: dict[str, int] = field(default_factory=dict)  # job -> its argument
    submitted: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    states: dict[str, list[str]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)  # of all kinds of events
    place: Place = events.BEGINNING

    def take(self, record: EventRecord) -> None:
        assert record.place >= self.place, "events come in order, and none twice"
        self.place = record.place.behind
        self.told[record.kind] += 1
        job = record.job or ""
        match record.kind:
            case "job.submitted":
                self.submitted[job] += 1
            case "tasks.ended":
                self.results[job] += len(record.tasks)
            case "job.ended":
                self.states.setdefault(job, []).append(str(record.data["state"]))

    def judge(self) -> None:
        """Each was accepted once, has one result and one end. Nobody else has submitted any."""
        jobs = self.ended.keys()
        assert len(jobs) == JOBS
        assert self.submitted == dict.fromkeys(jobs, 1)
        assert self.results == dict.fromkeys(jobs, 1)
        assert self.states == {job: ["succeeded"] for job in jobs}


@dataclass(slots=True)
class Storm:
    """Until cancelled."""

    cluster: LiveCluster
    switch: Switch
    fleet: Fleet
    kills: int = 0
    cuts: int = 0

    async def kill(self, client: Client) -> None:
        """The next one only once all are there again: two of three are no majority."""
        rng = random.Random(1)
        while True:
            await asyncio.sleep(KILL_EVERY_S)
            leader = await leader_of(self.fleet)
            self.cluster.kill(leader)
            self.kills += 1
            await asyncio.sleep(rng.uniform(*AWAY_S))
            self.cluster.restart_nowait(leader)
            await until(partial(self._is_back, client, leader), within_s=BACK_S)

    async def _is_back(self, client: Client, name: str) -> bool:
        pid = self.cluster.peers[name].pid
        views = await client.peers()
        return any(view.info.pid == pid and view.state == "alive" for view in views)

    async def cut(self) -> None:
        rng = random.Random(2)
        while True:
            await asyncio.sleep(CUT_EVERY_S)
            cut_at_random(self.switch, rng, await leader_of(self.fleet))
            self.cuts += 1
            await asyncio.sleep(rng.uniform(*AWAY_S))
            self.switch.heal()

    def calm(self) -> None:
        """All run, and reach each other."""
        self.switch.heal()
        for name, peer in self.cluster.peers.items():
            if peer.process.poll() is not None:
                self.cluster.restart_nowait(name)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[tuple[LiveCluster, Switch]]:
    with behind_a_switch(tmp_path) as (cluster, switch):
        yield cluster, switch


def test_no_small_job_is_lost_or_committed_twice_in_a_storm(
    net: tuple[LiveCluster, Switch],
) -> None:
    cluster, switch = net
    fleet = fleet_of(cluster)
    storm = Storm(cluster, switch, fleet)
    book = Book()
    numbers = count()

    async def work_off(client: Client) -> None:
        while (number := next(numbers)) < JOBS:
            task = client.submit(work.square, number)
            assert await task == number * number
            assert task.job.id not in book.ended
            book.ended[task.job.id] = number

    async def read(client: Client) -> None:
        kinds = EventFilter(kinds=("job.", "tasks."))
        async for record in events.each(client.session, start=events.BEGINNING, wanted=kinds):
            book.take(record)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(fleet.client(NAMES[n % len(NAMES)], PATIENT_S))
                for n in range(CLIENTS + 1)
            ]
            reader = clients.pop()
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read(reader))
                blows = [group.create_task(storm.kill(reader)), group.create_task(storm.cut())]
                async with asyncio.TaskGroup() as working:
                    for client in clients:
                        working.create_task(work_off(client))
                for blow in blows:
                    blow.cancel()
                storm.calm()
                await until(lambda: len(book.states) >= JOBS, within_s=TOLD_S)
                reading.cancel()
            book.judge()
            for id_ in list(book.ended)[:: max(1, JOBS // LOOKED_AT)]:
                await judge_history(await reader.job(id_))

    began_s = time.monotonic()
    asyncio.run(story())
    took_s = time.monotonic() - began_s
    assert min(storm.kills, storm.cuts) >= 2
    print(
        f"{JOBS} jobs in {took_s:.0f} s; {storm.kills} leaders killed, {storm.cuts} cuts,"
        f" {switch.counts.cut} packets cut; {dict(book.told)}"
    )

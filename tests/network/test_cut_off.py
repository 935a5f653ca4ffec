"""A peer that runs tasks is cut off alone, and comes back: every fate is told, and true (E3, E4).

`P2PSCHED_HEALS` says how many partitions; the promise is of 100.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.disconnected import Disconnected
from p2psched.client.programs import pack_program
from p2psched.client.session import Session
from p2psched.model.commands import Recorded
from p2psched.model.ids import JobId, new_id
from p2psched.model.messages import FetchHistory, History, JobAccepted, Submit
from p2psched.model.needs import Needs
from p2psched.model.reconcile import Judged, Reconciliation
from p2psched.model.taskset import TaskSet
from p2psched.store.folder import read_secret_file
from tests.cluster import LiveCluster
from tests.integration.rig import until
from tests.network.behind import behind_a_switch
from tests.network.switch import Switch, why_not

HEALS: Final = int(os.environ.get("P2PSCHED_HEALS", "4"))
DECIDED_MS: Final = 5_000
ALONE: Final = "c"
TASKS: Final = 12
CUT_S: Final = (0.5, 9.0)  # shorter than the silence that is noticed, and much longer
_REASON: Final = why_not()

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(120 + 30 * HEALS),
    pytest.mark.skipif(bool(_REASON), reason=_REASON),
]

Key = tuple[int, int]  # task and grant


class Story:
    def __init__(self, cluster: LiveCluster, switch: Switch, folder: Path) -> None:
        self.cluster, self.switch, self.folder = cluster, switch, folder
        self.rng = random.Random(11)

    def only(self, name: str) -> Session:
        secret = read_secret_file(self.cluster.peers["a"].data / "secret")
        return Session([self.cluster.peers[name].address], secret=secret, patience_s=10)

    async def reports(self) -> tuple[Reconciliation, ...]:
        session = self.only(ALONE)
        try:
            return await Disconnected(session).reports()
        finally:
            await session.__aexit__()

    async def submit(self, number: int) -> tuple[JobId, Path]:
        """Tasks that say on which peer they start and under which fence."""
        starts = self.folder / f"starts-{number}"
        script = f"echo $P2P_PEER $P2P_INDEX $P2P_FENCE >> {starts}; sleep 0.$((RANDOM % 9))"
        label = (("name", ALONE),)
        needs = Needs(require=label) if number % 2 else Needs(prefer=label)
        spec, _ = pack_program(
            ["bash", "-c", script], submitter="", tasks=TaskSet.of(0, TASKS), needs=needs
        )
        job = JobId(new_id(self.rng))
        async with self.cluster.client("a") as client:
            await client.session.call(Submit(job, spec), JobAccepted)
        return job, starts

    async def partition(self, number: int) -> tuple[int, int, int]:
        """One cut and one heal; how many tasks met which fate."""
        before = len(await self.reports())
        job, starts = await self.submit(number)
        await until(lambda: starts.exists() and len(starts.read_text().splitlines()) >= 2)
        self.switch.cut_off(ALONE)
        await asyncio.sleep(self.rng.uniform(*CUT_S))
        seen_alone = self.started_alone(starts)
        self.switch.heal()
        async with self.cluster.client("a") as client:
            await (await client.job(job)).wait()
            history = await client.session.call(FetchHistory(job), History)
        counted = {
            (index, event.event.grant)
            for event in history.events
            if isinstance(event.event, Recorded)
            for index in event.event.segment.tasks
        }
        assert sorted(index for index, _ in counted) == list(range(TASKS)), "each task once"
        await self.peers_are_up()
        new = (await self.reports())[before:]
        return self.check(job, new, counted, seen_alone)

    def started_alone(self, starts: Path) -> set[Key]:
        """What was begun there: (task, grant)."""
        found = set()
        for line in starts.read_text().splitlines():
            peer, index, fence = line.split()
            if peer == ALONE:
                found.add((int(index), int(fence.split(".")[1])))
        return found

    def check(
        self, job: JobId, new: tuple[Reconciliation, ...], counted: set[Key], begun: set[Key]
    ) -> tuple[int, int, int]:
        committed = keys_of(job, [line for report in new for line in report.committed])
        discarded = keys_of(job, [line for report in new for line in report.discarded])
        ended = keys_of(job, [line for report in new for line in report.ended])
        assert committed <= counted, "what is said to count, counts"
        assert not (discarded | ended) & counted, "and nothing else does"
        assert len(committed) + len(discarded) + len(ended) == len(committed | discarded | ended)
        silent = begun - counted - discarded - ended
        assert not silent or not new, f"nobody says what became of {silent}"
        assert all(report.decided_ms <= DECIDED_MS for report in new), new
        return len(committed), len(discarded), len(ended)

    async def peers_are_up(self) -> None:
        async def are_up() -> bool:
            async with self.cluster.client("a") as client:
                views = await client.peers()
            return all(view.state == "alive" for view in views) and await self.is_told()

        await until(are_up)

    async def is_told(self) -> bool:
        """No report is on its way."""
        session = self.only(ALONE)
        try:
            return not (await Disconnected(session).reconciles()).open
        finally:
            await session.__aexit__()


def keys_of(job: JobId, lines: list[Judged]) -> set[Key]:
    return {(index, line.grant) for line in lines if line.job == job for index in line.tasks}


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with behind_a_switch(tmp_path) as (cluster, switch):
        yield Story(cluster, switch, tmp_path)


def test_every_fate_after_a_partition_is_told_and_true(story: Story) -> None:
    async def tell() -> None:
        totals = [0, 0, 0]
        for number in range(HEALS):
            for at, count in enumerate(await story.partition(number)):
                totals[at] += count
        assert totals[0], "results from there were committed"
        print(f"\n{HEALS} heals: committed, discarded, ended {totals}")

    asyncio.run(tell())

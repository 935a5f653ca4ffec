"""Working peers are killed, paused and restarted; each start of a task is accounted for (E1, P6).

Tasks write down that they began, outside of the cluster. Afterwards the history of their job, and
the event log as somebody read it meanwhile, have each of these starts: as the attempt whose result
counts, or as one that was lost, and is marked so. `P2PSCHED_KILLS=200` is what is promised.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import psutil
import pytest

from bench.judge import judge_history
from p2psched.client import events
from p2psched.client.attempts import attempts_of
from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.client.story import read_history
from p2psched.model.event_messages import EventFilter, EventRecord
from p2psched.model.ids import JobId, new_id
from p2psched.model.job import Cause, JobState
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.rig import ROOT, tasks, until

KILLS: Final = int(os.environ.get("P2PSCHED_KILLS", "12"))
NAMES: Final = ("a", "b", "c", "d", "e")
HANDS: Final = 2  # that disturb a peer each, at a time: a majority is left
AWAY_S: Final = (0.2, 5.0)  # some are declared down meanwhile
TASKS: Final = 24
PAUSES_S: Final = (0.0, 0.05, 0.4)  # that tasks of a job take
PATIENT_S: Final = 60.0
BACK_S: Final = 60.0
# What `work.counted` does, as a program.
PROGRAM: Final = (
    'echo "$P2P_INDEX $P2P_FENCE $P2P_PEER $P2P_ATTEMPT" >> "$1"; sleep "$2"; echo "$P2P_FENCE"'
)

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(300 + KILLS * 15),
]


@dataclass(frozen=True, slots=True)
class Start:
    """A line that a task wrote when it began."""

    index: int
    fence: str
    peer: str  # name
    attempt: int

    @property
    def grant(self) -> int:
        return int(self.fence.split(".")[1])


def starts_in(path: Path) -> list[Start]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Start(int(i), f, p, int(a)) for i, f, p, a in map(str.split, lines)]


@dataclass(slots=True)
class EventLog:
    """What the events have told of each grant of a task."""

    granted: dict[tuple[JobId, int, int], str] = field(default_factory=dict)  # job, index, grant
    ends: defaultdict[tuple[JobId, int, int], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    ended_jobs: set[JobId] = field(default_factory=set)

    def take(self, record: EventRecord) -> None:
        if record.job is None:
            return
        if record.kind == "job.ended":
            self.ended_jobs.add(record.job)
        for index in record.tasks if "grant" in record.data else ():
            grant = record.data["grant"]
            assert isinstance(grant, int)
            key = record.job, index, grant
            if record.kind == "tasks.granted":
                self.granted[key] = record.peer or ""
            elif record.kind in ("tasks.ended", "tasks.retried", "tasks.revoked"):
                self.ends[key].append(record.kind)


@dataclass(slots=True)
class Mischief:
    """Hands that each take hold of a peer that no other one has, and bring it back."""

    cluster: LiveCluster
    rng: random.Random
    left: int = KILLS
    done: Counter[str] = field(default_factory=Counter)
    held: set[str] = field(default_factory=set)

    async def disturb(self, client: Client) -> None:
        while self.left > 0:
            self.left -= 1
            name = self.rng.choice([name for name in NAMES if name not in self.held])
            self.held.add(name)
            act = self.rng.choice((self.kill, self.kill_all, self.pause, self.restart))
            await act(name)
            self.done[act.__name__] += 1
            await until(partial(self._is_back, client, name), within_s=BACK_S)
            self.held.remove(name)

    async def kill(self, name: str) -> None:
        """Alone: its workers notice by themselves."""
        self.cluster.kill(name)
        await self._start_again(name)

    async def kill_all(self, name: str) -> None:
        """With its starter, workers and programs, itself first: it has no time to tell of them."""
        peer = psutil.Process(self.cluster.peers[name].pid)
        for process in (peer, *peer.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.cluster.peers[name].process.wait()
        await self._start_again(name)

    async def pause(self, name: str) -> None:
        process = self.cluster.peers[name].process
        process.send_signal(signal.SIGSTOP)
        try:
            await self._wait()
        finally:
            process.send_signal(signal.SIGCONT)

    async def restart(self, name: str) -> None:
        process = self.cluster.peers[name].process
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None)
        await self._start_again(name)

    async def _start_again(self, name: str) -> None:
        await self._wait()
        self.cluster.restart_nowait(name)

    async def _wait(self) -> None:
        await asyncio.sleep(self.rng.uniform(*AWAY_S))

    async def _is_back(self, client: Client, name: str) -> bool:
        views = {view.info.name: view for view in await client.peers()}
        return views[name].state == "alive" and views[name].info.pid == self.cluster.peers[name].pid


@dataclass(slots=True)
class Work:
    """Jobs one after another, of programs and of functions by turns."""

    folder: Path
    jobs: dict[JobId, Path] = field(default_factory=dict)  # and the side file of each
    numbers: Iterator[int] = field(default_factory=count)

    async def keep_on(self, client: Client, stop: asyncio.Event) -> None:
        while not stop.is_set():
            number = next(self.numbers)
            id_ = new_id(random.SystemRandom())
            side = self.jobs[JobId(id_)] = self.folder / f"side-{number}"
            pause_s = PAUSES_S[number // 2 % len(PAUSES_S)]
            if number % 2:
                argv = ["sh", "-c", PROGRAM, "task", str(side), str(pause_s)]
                job = await client.submit_program(argv, tasks=tasks(TASKS), job_id=id_)
            else:
                words = [str(side)] * TASKS, [pause_s] * TASKS
                job = await client.map(work.counted, *words, job_id=id_)
            view = await job.wait()
            assert view.state is JobState.SUCCEEDED, (id_, view.bad_ends, view.stopped)


@dataclass(slots=True)
class Account:
    """Of all jobs, start by start."""

    client: Client
    names: dict[str, str]  # of peers, by id
    log: EventLog
    tally: Counter[str] = field(default_factory=Counter)

    async def close(self, job_id: JobId, side: Path) -> None:
        """Raises AssertionError for a start that nothing tells of, and for a result that is not
        that of the one attempt that counts."""
        job = await self.client.job(job_id)
        await judge_history(job)
        told = (await read_history(self.client.session, job_id)).events
        starts = defaultdict(list)
        for start in starts_in(side):
            starts[start.index].append(start)
        for index in range(TASKS):
            attempts = {one.grant: one for one in attempts_of(told, index)}
            (final,) = (one for one in attempts.values() if one.is_final)
            item = (await job.item(index)).item or b""
            begun = starts[index]
            assert max(Counter(start.fence for start in begun).values()) == 1, begun
            (counts,) = (start for start in begun if start.fence.encode() in item)
            assert counts.grant == final.grant
            for start in begun:
                one = attempts.get(start.grant)
                assert one is not None, f"{start} is not in the history of {job}: {attempts}"
                assert self.names[one.peer] == start.peer, (start, one)
                assert one.cause is not None, f"nothing tells how {start} ended: {one}"
                assert one.is_final == (start is counts), (start, one)
                self._check_log(job, start, is_final=start is counts)
                self.tally["counts" if one.is_final else str(one.cause)] += 1
            for grant in attempts.keys() - {start.grant for start in begun}:
                assert attempts[grant].cause is Cause.PEER_LOST, "nobody saw it begin"
                self.tally["granted and lost, never begun"] += 1

    def _check_log(self, job: Job, start: Start, *, is_final: bool) -> None:
        key = JobId(job.id), start.index, start.grant
        assert self.names[self.log.granted[key]] == start.peer, start
        assert self.log.ends[key], f"no event tells how {start} ended"
        assert ("tasks.ended" in self.log.ends[key]) == is_final, (start, self.log.ends[key])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path) as cluster:
        cluster.env["PYTHONPATH"] = str(ROOT)
        for name in NAMES:
            cluster.start(name, slots=1)
        cluster.await_voters(len(NAMES))
        yield cluster


def test_every_start_of_a_task_is_in_the_log_and_one_of_each_counts(cluster: LiveCluster) -> None:
    seed = random.SystemRandom().getrandbits(32)
    mischief = Mischief(cluster, random.Random(seed))
    running, log = Work(cluster.folder), EventLog()

    def client() -> Client:
        return Client(runtime_dir=cluster.runtime_dir, patience_s=PATIENT_S)

    async def read(reader: Client) -> None:
        kinds = EventFilter(kinds=("job.ended", "tasks."))
        async for record in events.each(reader.session, start=events.BEGINNING, wanted=kinds):
            log.take(record)

    async def story() -> Account:
        stop = asyncio.Event()
        async with client() as one, client() as other, asyncio.TaskGroup() as group:
            reading = group.create_task(read(other))
            async with asyncio.TaskGroup() as working:
                for _ in range(HANDS):
                    working.create_task(running.keep_on(one, stop))
                async with asyncio.TaskGroup() as hands:
                    for _ in range(HANDS):
                        hands.create_task(mischief.disturb(other))
                stop.set()
            await until(lambda: log.ended_jobs >= running.jobs.keys())
            reading.cancel()
            names = {view.info.peer: view.info.name for view in await one.peers()}
            account = Account(one, {str(peer): name for peer, name in names.items()}, log)
            for id_, side in running.jobs.items():
                await account.close(id_, side)
        return account

    began_s = time.monotonic()
    account = asyncio.run(story())
    print(
        f"seed {seed}: {dict(mischief.done)} in {time.monotonic() - began_s:.0f} s;"
        f" {len(running.jobs)} jobs, starts: {dict(account.tally)}"
    )
    assert account.tally["counts"] == TASKS * len(running.jobs)
    assert account.tally[Cause.PEER_LOST] or KILLS < 100

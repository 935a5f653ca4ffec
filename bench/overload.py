"""Ten times what a cluster takes: it says `busy` in time, and keeps its memory, leader and word.

Callers that keep to nothing: each of many connections sends submits at a fixed rate, whatever comes
back. Before and after that the rate is measured that callers get who wait for their answers.

    python -m bench.overload --for 300
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Final

from bench.cluster import Cluster, running
from bench.stats import at
from p2psched.client.functions import calls, pack
from p2psched.client.session import Session
from p2psched.model.errors import Busy, P2PSchedError
from p2psched.model.ids import JobId, new_id
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import AnswerBody, FindJob, JobAccepted, JobView, Submit
from p2psched.model.status_messages import StatusAnswer
from p2psched.net.calls import CallClient

SLOTS: Final = (1, 1, 1)
FACTOR: Final = 10.0
STEADY_S: Final = 5.0  # as long as a normal rate is measured
CALLERS: Final = 32  # who wait for their answers
TURN_S: Final = 0.01  # between two bursts of the flood
RATE_SAMPLE_S: Final = 1.0
AGAIN_S: Final = 30.0  # after the flood the rate is watched for so long, ...
SETTLED_S: Final = 10  # ... and what it was in the last of these seconds is normal
AGAIN_SHARE: Final = 0.7  # of that: normal again
NEWEST: Final = 50_000
SAMPLE: Final = 2_000  # jobs that are looked at one by one
OPEN_MAX: Final = CALLS_IN_FLIGHT_MAX - 6  # a connection takes no more calls; the rest is not sent


@dataclass(slots=True)
class Report:
    """What a flood did. Times in milliseconds, memory in MiB, per peer."""

    sustained_per_s: float = 0.0
    offered_per_s: float = 0.0
    accepted_per_s: float = 0.0
    busy_per_s: float = 0.0
    unsent: int = 0  # beyond what a connection may have open
    answers: dict[str, int] = field(default_factory=dict)
    answer_ms_p50: float = 0.0
    answer_ms_p99: float = 0.0
    answer_ms_max: float = 0.0
    busy_ms_p99: float = 0.0  # of those that were refused
    accepted_ms_p99: float = 0.0
    retry_ms: tuple[int, int] = (0, 0)  # that were named: least, most
    terms: tuple[int, int] = (0, 0)  # before, after
    memory_before: list[float] = field(default_factory=list)
    memory_curve: list[list[float]] = field(default_factory=list)  # each second
    here_late_ms_p99: float = 0.0  # how late this process itself came to its turns in the flood
    here_late_ms_max: float = 0.0
    late_ms_p99: list[float] = field(default_factory=list)  # of the loops, at the end of the flood
    left: int = 0  # jobs that have not ended when the flood is over
    refused: list[int] = field(default_factory=list)  # as each peer counts it
    again_s: float = 0.0  # until the rate is normal
    again_curve: list[float] = field(
        default_factory=list
    )  # the rate of each second after the flood
    settled_per_s: float = 0.0  # with as many ended jobs to remember as a cluster ever does
    accepted: int = 0
    looked_at: int = 0  # of these
    finished: int = 0
    lost: int = 0
    twice: int = 0

    @property
    def memory_max(self) -> float:
        return max((mib for row in self.memory_curve for mib in row), default=0.0)


def rss_mib(pid: int) -> float:
    """Of resident memory, now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no VmRSS in /proc/{pid}/status")


class Flood:
    """On a cluster that is up. One use."""

    def __init__(self, cluster: Cluster, *, connections: int = 24) -> None:
        self.cluster = cluster
        self.report = Report()
        self.accepted: list[JobId] = []
        self._spec = pack(sqrt, calls([4.0]), submitter="flood", name="flood").spec
        self._rng = random.Random(11)
        self._connections = connections
        self._answers: Counter[str] = Counter()
        self._took_ms: list[float] = []
        self._took: dict[str, list[float]] = {"busy": [], "JobAccepted": []}
        self._retries: list[int] = []

    async def run(self, for_s: float) -> Report:
        report = self.report
        async with AsyncExitStack() as stack:
            sessions = [
                (await stack.enter_async_context(self.cluster.client(number % 3))).session
                for number in range(self._connections)
            ]
            report.sustained_per_s = await self._rate(sessions, STEADY_S)
            report.terms = ((await self._status()).term, 0)
            report.memory_before = self._memory()
            await self._flood([await session.connection() for session in sessions], for_s)
        statuses = await self.cluster.statuses()
        report.left = max(status.jobs_running for status in statuses)
        report.late_ms_p99 = [status.loop_late_ms_p99 for status in statuses]
        report.refused = [status.door.refused for status in statuses if status.door is not None]
        async with AsyncExitStack() as stack:
            fresh = [
                (await stack.enter_async_context(self.cluster.client(number % 3))).session
                for number in range(6)
            ]
            await self._again(fresh)
            report.terms = (report.terms[0], (await self._status()).term)
            await self._count(fresh[0])
        self._sum_up(for_s)
        return report

    # --- callers who wait ---

    async def _rate(self, sessions: Sequence[Session], for_s: float) -> float:
        """Submits that are accepted in a second, of callers that ask one after another."""
        until_s = time.perf_counter() + for_s
        before = len(self.accepted)

        async def ask(session: Session) -> None:
            while time.perf_counter() < until_s:
                job = JobId(new_id(self._rng))
                await session.call(Submit(job, self._spec), JobAccepted)
                self.accepted.append(job)

        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(ask(sessions[number % len(sessions)]))
        return (len(self.accepted) - before) / for_s

    async def _again(self, sessions: Sequence[Session]) -> None:
        """Normal is what the same callers get later, with as much to remember: not what they got
        of a cluster that had no past."""
        curve: list[tuple[float, float]] = []
        began_s = time.perf_counter()
        while (since_s := time.perf_counter() - began_s) < AGAIN_S:
            curve.append((since_s, await self._rate(sessions, RATE_SAMPLE_S)))
        rates = [rate for _, rate in curve]
        normal = statistics.median(rates[-SETTLED_S:])
        self.report.again_curve, self.report.settled_per_s = rates, normal
        self.report.again_s = next(at_s for at_s, rate in curve if rate >= AGAIN_SHARE * normal)

    # --- callers who don't ---

    async def _flood(self, callers: Sequence[CallClient], for_s: float) -> None:
        rate = FACTOR * self.report.sustained_per_s
        self.report.offered_per_s = rate
        began_s = time.perf_counter()
        sent, looked_s = 0, 0.0
        late_ms: list[float] = []
        while (since_s := time.perf_counter() - began_s) < for_s:
            due = int(rate * since_s) - sent
            for number in range(sent, sent + due):
                self._send(callers[number % len(callers)])
            sent += due
            if since_s - looked_s >= 1.0:
                looked_s = since_s
                self.report.memory_curve.append(self._memory())
            slept_s = time.perf_counter()
            await asyncio.sleep(TURN_S)
            late_ms.append((time.perf_counter() - slept_s - TURN_S) * 1000)
        self.report.here_late_ms_p99 = at(late_ms, 0.99) if late_ms else 0.0
        self.report.here_late_ms_max = max(late_ms, default=0.0)
        while any(client.open_count for client in callers):  # noqa: ASYNC110 (callbacks end them)
            await asyncio.sleep(TURN_S)

    def _send(self, client: CallClient) -> None:
        if client.open_count >= OPEN_MAX or not client.connection.has_room:
            self.report.unsent += 1
            return
        job = JobId(new_id(self._rng))
        heard = partial(self._heard, job, time.perf_counter())
        client.call_nowait(Submit(job, self._spec), heard)

    def _heard(self, job: JobId, since_s: float, answer: AnswerBody | P2PSchedError) -> None:
        took_ms = (time.perf_counter() - since_s) * 1000
        kind = "busy" if isinstance(answer, Busy) else type(answer).__name__
        self._took_ms.append(took_ms)
        self._took.setdefault(kind, []).append(took_ms)
        self._answers[kind] += 1
        if isinstance(answer, JobAccepted):
            self.accepted.append(job)
        elif isinstance(answer, Busy):
            self._retries.append(round(answer.retry_after_s * 1000))

    # --- what came of it ---

    async def _count(self, session: Session) -> None:
        """All that was accepted ends, each job with one result. Of many a sample is looked at."""
        report = self.report
        report.accepted = len(self.accepted)
        while (await self._status()).jobs_running:  # noqa: ASYNC110 (other processes)
            await asyncio.sleep(0.2)
        newest = self.accepted[-NEWEST:]  # older ones may be forgotten by now, as they should
        for job in self._rng.sample(newest, min(SAMPLE, len(newest))):
            view = await session.call(FindJob(job), JobView)
            report.looked_at += 1
            report.finished += view.succeeded == 1
            report.twice += view.succeeded > 1
            report.lost += view.succeeded < 1

    async def _status(self) -> StatusAnswer:
        async with self.cluster.client() as client:
            return await client.status()

    def _memory(self) -> list[float]:
        return [round(rss_mib(process.pid), 1) for process in self.cluster.processes]

    def _sum_up(self, for_s: float) -> None:
        report = self.report
        took = sorted(self._took_ms)
        if took:
            report.answer_ms_p50 = took[len(took) // 2]
            report.answer_ms_p99 = took[int((len(took) - 1) * 0.99)]
            report.answer_ms_max = took[-1]
        report.busy_ms_p99 = at(self._took["busy"], 0.99)
        report.accepted_ms_p99 = at(self._took["JobAccepted"], 0.99)
        if self._retries:
            report.retry_ms = (min(self._retries), max(self._retries))
        report.answers = dict(self._answers)
        report.accepted_per_s = self._answers["JobAccepted"] / for_s
        report.busy_per_s = self._answers["busy"] / for_s


async def main(for_s: float) -> Report:
    async with running(SLOTS) as cluster:
        return await Flood(cluster).run(for_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="for_s", type=float, default=300.0, help="seconds of flood")
    found = asyncio.run(main(parser.parse_args().for_s))
    print(json.dumps({**asdict(found), "memory_max": found.memory_max}, indent=1))

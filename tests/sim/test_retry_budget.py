"""Retries keep out of the way of healthy jobs: a coordinator in virtual time, 10,000 tasks that
fail at once and a stream of small jobs beside them (S50)."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from p2psched.core.coordinator import Coordinator
from p2psched.core.retry_budget import FULL_MS, SHARE_PERCENT
from p2psched.model import chunks
from p2psched.model.commands import Complete, Granted, Recorded, Retried
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.retry import RetryRule
from tests.core.retry_rig import PEERS, Ledger, P, spec

SLOTS = 10  # of each of three peers
STORM = JobId("storm")
STORM_TASKS = 10_000
HEALTHY_MS = 400
HEALTHY_EVERY_MS = 2_000  # a job of a hundred such tasks: two thirds of the cluster
HEALTHY_TASKS = 100
FROM_MS = 60_000  # the storm's first attempts are over: who is submitted from here on is measured
UNTIL_MS = 240_000
RETRY_MS = 2_000  # what each further attempt of the storm takes before it fails


@dataclass
class Cluster:
    """Peers that run what they own, first come first served; the coordinator looks each 100 ms."""

    percent: int
    storm: bool  # else the same tasks succeed at once
    ledger: Ledger = field(default_factory=lambda: Ledger(slots=SLOTS, checks=False))
    retry_ms: int = 0  # slot time that further attempts of the storm took
    waits: list[int] = field(default_factory=list)  # of healthy tasks, from submit to start

    def __post_init__(self) -> None:
        machine = self.ledger.machine
        self.coordinator = Coordinator(P, machine, window_ms=1 << 40, retry_percent=self.percent)
        self.coordinator.on_coordinator(0, is_self=True)
        self.queues: dict[PeerId, deque[tuple[JobId, int, int]]] = {p: deque() for p in PEERS}
        self.busy = dict.fromkeys(PEERS, 0)
        self.ends: list[tuple[int, int, PeerId, JobId, int, int, int]] = []
        self.submitted: dict[JobId, int] = {}
        self.tries: dict[int, int] = {}
        self.seen = 0
        self.rng = random.Random(7)

    def run(self) -> None:
        self.ledger.submit(spec(STORM_TASKS, RetryRule(Cause.EXIT, 100)), STORM)
        count = 0
        for now_ms in range(1_000, UNTIL_MS, 100):
            while self.ends and self.ends[0][0] <= now_ms:
                self._end(heapq.heappop(self.ends))
            self.ledger.now_ms = now_ms
            if now_ms % HEALTHY_EVERY_MS == 0:
                count += 1
                self.submitted[JobId(f"h{count}")] = now_ms
                self.ledger.submit(spec(HEALTHY_TASKS), f"h{count}")
            self._place(now_ms)

    def _place(self, now_ms: int) -> None:
        self.coordinator.find_dead(now_ms, {})
        for command in self.coordinator.place():
            self.ledger.do(command)
        self._hear()
        for peer in PEERS:
            self._start(peer, now_ms)

    def _hear(self) -> None:
        for event in self.ledger.events[self.seen :]:
            if isinstance(event, Granted):
                self.queues[event.peer] += [(event.job, event.grant, i) for i in event.tasks]
            elif isinstance(event, Retried | Recorded):
                self.coordinator.on_event(event)
        self.seen = len(self.ledger.events)

    def _start(self, peer: PeerId, now_ms: int) -> None:
        while self.queues[peer] and self.busy[peer] < SLOTS:
            job, grant, index = self.queues[peer].popleft()
            self.busy[peer] += 1
            took_ms = HEALTHY_MS
            if job == STORM:  # quick at first: all of them have failed before anybody else comes
                is_retry = self.tries.get(index, 0) > 0
                self.tries[index] = self.tries.get(index, 0) + 1
                took_ms = RETRY_MS if is_retry else 1
                self.retry_ms += took_ms * (is_retry and now_ms >= FROM_MS)
            elif self.submitted[job] >= FROM_MS:
                self.waits.append(now_ms - self.submitted[job])
            end = (now_ms + took_ms, self.rng.randrange(1 << 60), peer, job, grant, index, took_ms)
            heapq.heappush(self.ends, end)

    def _end(self, end: tuple[int, int, PeerId, JobId, int, int, int]) -> None:
        at_ms, _, peer, job, grant, index, took_ms = end
        self.ledger.now_ms = max(self.ledger.now_ms, at_ms)
        cause = Cause.EXIT if job == STORM and self.storm else Cause.OK
        segment = Segment(index, index + 1, cause, chunks.pack([b"x"]), took_ms * 1_000)
        self.ledger.do(Complete(job, grant, (segment,)))
        self.busy[peer] -= 1
        self._hear()
        self._start(peer, at_ms)

    @property
    def p95_wait_ms(self) -> int:
        return sorted(self.waits)[len(self.waits) * 95 // 100]


def ran(percent: int = SHARE_PERCENT, *, storm: bool) -> Cluster:
    cluster = Cluster(percent, storm=storm)
    cluster.run()
    return cluster


def test_a_storm_of_retries_takes_its_share_and_healthy_jobs_wait_no_longer() -> None:
    calm, kept = ran(storm=False), ran(storm=True)
    slot_ms = (UNTIL_MS - FROM_MS) * SLOTS * len(PEERS)
    most_ms = (slot_ms + FULL_MS * SLOTS * len(PEERS)) * SHARE_PERCENT // 100
    in_flight_ms = RETRY_MS * SLOTS * len(PEERS)  # that nobody knew yet how long it takes
    assert 0 < kept.retry_ms <= most_ms + in_flight_ms
    assert len(calm.waits) == len(kept.waits) > 8_000
    print(f"retries took {kept.retry_ms / slot_ms:.1%}")
    print(f"p95 wait {calm.p95_wait_ms} ms, {kept.p95_wait_ms} ms beside the storm")
    assert kept.p95_wait_ms <= calm.p95_wait_ms * 1.2


@pytest.mark.wide
def test_without_a_budget_it_would_take_what_it_can() -> None:
    kept, free = ran(storm=True), ran(100, storm=True)
    assert free.retry_ms > 2 * kept.retry_ms
    assert free.p95_wait_ms > 2 * max(1, kept.p95_wait_ms)

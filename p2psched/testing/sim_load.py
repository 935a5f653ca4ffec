"""Load of simulated peers: machines of several kinds that do something all the time, and peers on
them that get work. What load reports are measured with, and their dictionary is trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from p2psched.core.load_report import LoadReporter, Said
from p2psched.model.load import LoadReport, TypeSpeed
from p2psched.model.load_news import LoadNews
from p2psched.testing.sim_workload import Workload
from p2psched.testing.simulate import Options, draw_cluster

LOOK_MS: Final = 100  # between two looks of a peer at its load
SENSE_MS: Final = 1_000  # between two readings of sensors
_GIB: Final = 1024  # in MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A kind of machine."""

    cores: tuple[int, ...]
    memory_gib: tuple[int, ...]
    gpus: tuple[int, ...] = (0,)
    npus: tuple[int, ...] = (0,)
    has_battery: bool = False
    has_temperature: bool = True


MODELS: Final = (
    Model(cores=(8, 16, 32, 64), memory_gib=(32, 64, 256), gpus=(0, 0, 1, 4, 8)),
    Model(cores=(4, 8), memory_gib=(8, 16, 32), gpus=(0, 1), has_battery=True),
    Model(cores=(4,), memory_gib=(1, 2, 4, 8), npus=(0, 1)),  # a board
    Model(cores=(1, 2, 4), memory_gib=(2, 4, 8), has_temperature=False),  # a container
)


class SimMachine:
    """What sensors would say of one machine, second after second."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        model = rng.choice(MODELS)
        memory = rng.choice(model.memory_gib) * _GIB - rng.randrange(300)
        self._report = LoadReport(
            number=0,
            cores=rng.choice(model.cores),
            memory=memory,
            memory_free=memory * rng.randint(20, 90) // 100,
            disk_free=rng.randrange(2 * _GIB, 900 * _GIB),
            gpus=rng.choice(model.gpus),
            npus=rng.choice(model.npus),
            battery=rng.randint(20, 100) if model.has_battery else -1,
            mains=not model.has_battery or rng.random() < 0.7,
            temperature=rng.randint(35, 60) if model.has_temperature else -1,
            machine=rng.getrandbits(32) or 1,
            duty=rng.choice((1000, 1000, 500, 800)),
        )
        self._others = 0  # per mille of its processors, used by others
        self._until_s = 0

    @property
    def cores(self) -> int:
        return self._report.cores

    def sense(self, second: int, busy: int) -> LoadReport:
        """With `busy` slots in use. Once a second."""
        rng, before = self._rng, self._report
        if second >= self._until_s:  # somebody begins, or ends, something else
            self._until_s = second + rng.randint(20, 400)
            self._others = rng.choice((0, 0, 0, 20, 300, 900))
        foreign = _near(rng, self._others, 15, 1000)
        own = 1000 * busy // self.cores
        sent = rng.choice((0, 0, 3, 40, 9_000)) if busy else rng.choice((0, 0, 1, 3))
        drain = second % 120 == 0 and before.battery > 0
        self._report = msgspec.structs.replace(
            before,
            cpu=min(1000, foreign + own),
            foreign_cpu=foreign,
            memory_free=_near(rng, before.memory_free, before.memory // 400, before.memory),
            disk_free=_near(rng, before.disk_free, 4 * busy, 1 << 40),
            gpus_busy=min(before.gpus, busy),
            received=sent // 2,
            sent=sent,
            battery=before.battery + (1 if before.mains else -1) * drain
            if 0 < before.battery < 100
            else before.battery,
            temperature=min(95, 40 + own // 25) if before.temperature >= 0 else -1,
            load=max(0, (foreign + own) * self.cores // 10),
        )
        return self._report


class SimWork:
    """What an owner would say of its work: jobs of a few kinds come, and are worked off."""

    def __init__(self, rng: random.Random, slots: int, *, jobs_per_min: float) -> None:
        self._rng = rng
        self._slots = slots
        self._per_min = jobs_per_min
        self._kinds = [(rng.getrandbits(32), int(10 ** rng.uniform(3, 7))) for _ in range(4)]
        self._queued = dict.fromkeys((kind for kind, _ in self._kinds), 0)
        self._speeds: dict[int, TypeSpeed] = {}

    def work(self, passed_ms: int) -> LoadReport:
        rng = self._rng
        if rng.random() < self._per_min * passed_ms / 60_000:
            kind, _ = rng.choice(self._kinds)
            self._queued[kind] += int(10 ** rng.uniform(0, 3))
        left_us = self._slots * passed_ms * 1000
        busy_us = 0
        for kind, mean_us in self._kinds:
            done = min(self._queued[kind], -(-(left_us - busy_us) // mean_us))
            if done <= 0:
                continue
            self._queued[kind] -= done
            busy_us += done * mean_us
            known = self._speeds.pop(kind, None)
            spread_us = rng.randint(mean_us // 20, mean_us // 4)
            count = done + (known.count if known is not None else 0)
            self._speeds[kind] = TypeSpeed(
                kind, _near(rng, mean_us, mean_us // 9), spread_us, count
            )
        queued = [(kind, count) for kind, count in self._queued.items() if count]
        means = dict(self._kinds)
        return LoadReport(
            number=0,
            slots=self._slots,
            running=min(self._slots, -(-busy_us // (passed_ms * 1000))),
            queue=sum(count for _, count in queued),
            queue_us=sum(means[kind] * count for kind, count in queued) + busy_us // 2,
            queued=tuple(sorted(queued, key=lambda one: (-one[1], one[0]))),
            speeds=tuple(self._speeds.values()),
        )


class SimPeerLoad:
    """A peer on a machine."""

    def __init__(self, rng: random.Random, *, jobs_per_min: float) -> None:
        self._machine = SimMachine(rng)
        self._work = SimWork(rng, self._machine.cores, jobs_per_min=jobs_per_min)
        self._sensed = self._machine.sense(0, 0)

    def look(self, now_ms: int) -> LoadReport:
        """Every LOOK_MS."""
        work = self._work.work(LOOK_MS)
        if now_ms % SENSE_MS == 0:
            self._sensed = self._machine.sense(now_ms // 1000, work.running)
        return joined(work, self._sensed)


def joined(work: LoadReport, sensed: LoadReport) -> LoadReport:
    """What an owner says, and what sensors say."""
    return msgspec.structs.replace(
        sensed,
        slots=work.slots,
        running=work.running,
        queue=work.queue,
        queue_us=work.queue_us,
        takes=work.takes,
        queued=work.queued,
        speeds=work.speeds,
        warm=work.warm,
    )


def said(
    peer: SimPeerLoad,
    encode: Callable[[LoadNews], bytes],
    *,
    seconds: int,
    bytes_s: float,
) -> Iterator[tuple[int, LoadReport, Said | None]]:
    """Time, what a peer has found, and what it says of it."""
    reporter = LoadReporter(encode)
    for now_ms in range(0, seconds * 1000, LOOK_MS):
        found = peer.look(now_ms)
        yield now_ms, found, reporter.look(now_ms, found, bytes_s=bytes_s)


def recorded(seed: int, encode: Callable[[LoadNews], bytes], *, seconds: int) -> Iterator[bytes]:
    """What the peers of a simulated cluster would say: its owners have real work, and lose it."""
    rng = random.Random(seed)
    options = Options()
    cluster = draw_cluster(seed, rng, options)
    Workload(cluster, rng, options).next()
    machines = [SimMachine(rng) for _ in cluster.peers]
    sensed = [machine.sense(0, 0) for machine in machines]
    reporters = [LoadReporter(encode) for _ in cluster.peers]
    for now_ms in range(0, seconds * 1000, LOOK_MS):
        cluster.run_for(LOOK_MS)
        for number, peer in enumerate(cluster.peers):
            if not peer.alive:
                continue
            work = peer.scheduler.owner.load()
            if now_ms % SENSE_MS == 0:
                sensed[number] = machines[number].sense(now_ms // 1000, work.running)
            found = joined(work, sensed[number])
            if (news := reporters[number].look(now_ms, found, bytes_s=100)) is not None:
                yield news.data


def _near(rng: random.Random, value: int, step: int, most: int = 1 << 50) -> int:
    return min(most, max(0, value + rng.randint(-step, step)))

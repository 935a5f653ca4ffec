"""Six workloads, each the same for ever, that placement policies are measured on (S17).

They are drawn once, from fixed seeds: what matters is not where a policy is good but that it is
bad nowhere. `power`: what a slot of a peer can do of a kind of work, 1 is usual.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MS: Final = 1_000
S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A peer. `foreign`: from when to when (us) others use which share of it. `extra`: likewise,
    what each task takes longer (us)."""

    slots: int = 2
    power: Mapping[str, float] = field(default_factory=dict)
    usual: float = 1.0  # power for all other kinds
    weight: float = 1.0
    memory_mib: int = 0
    foreign: Sequence[tuple[int, int, float]] = ()
    extra: Sequence[tuple[int, int, int]] = ()

    def power_of(self, kind: str) -> float:
        return self.power.get(kind, self.usual)

    def foreign_at(self, at_us: int) -> float:
        return max(
            (share for start, stop, share in self.foreign if start <= at_us < stop), default=0
        )

    def extra_at(self, at_us: int) -> int:
        return max((more for start, stop, more in self.extra if start <= at_us < stop), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A job. `data_mib`: has to be on a peer before the first of its tasks can run there."""

    at_us: int
    kind: str
    tasks_us: Sequence[int]  # of each, on a slot of power 1
    cpus: int = 1
    memory_mib: int = 0
    data_mib: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    machines: Sequence[Machine]
    loads: Sequence[Load]

    @property
    def ideal_us(self) -> int:
        """No schedule ends before: all slots are busy with what they do best from the first submit
        to the end, and nothing has to wait for anything."""
        power = sum(m.slots * max(m.usual, *m.power.values(), 0.0) for m in self.machines)
        work = sum(us * load.cpus for load in self.loads for us in load.tasks_us)
        best = max(max(m.usual, *m.power.values(), 0.0) for m in self.machines)
        last = max(load.at_us + max(load.tasks_us) / best for load in self.loads)
        return round(max(work / power, last))


def _even() -> Workload:
    """One wide job of equal tasks on equal peers."""
    return Workload("even", [Machine()] * 4, [Load(at_us=0, kind="even", tasks_us=[40 * MS] * 800)])


def _uneven() -> Workload:
    """One task in ten takes fifty times as long as the others."""
    rng = random.Random(2)
    tasks = [500 * MS] * 40 + [10 * MS] * 360
    rng.shuffle(tasks)
    return Workload("uneven", [Machine()] * 4, [Load(at_us=0, kind="uneven", tasks_us=tasks)])


def _arrivals() -> Workload:
    """Single tasks come one by one, of durations that spread over a factor of a hundred; the peers
    are busy for three quarters of the time."""
    rng = random.Random(3)
    at, loads = 0.0, []
    for _ in range(600):
        at += rng.expovariate(1 / (50 * MS))
        took = min(3 * S, max(30 * MS, round(rng.lognormvariate(12.2, 0.9))))
        loads.append(Load(at_us=round(at), kind="arrival", tasks_us=[took]))
    return Workload("arrivals", [Machine()] * 4, loads)


def _kinds() -> Workload:
    """Two kinds of work: two peers are five times as quick at one of them, two at the other."""
    rng = random.Random(4)
    infer, train = {"infer": 5.0}, {"train": 3.0}
    machines = [Machine(power=infer)] * 2 + [Machine(power=train)] * 2
    at, loads = 0.0, []
    for number in range(120):
        at += rng.expovariate(1 / (100 * MS))
        kind = "infer" if number % 2 else "train"
        tasks = [round(rng.uniform(100, 500)) * MS for _ in range(rng.randint(2, 8))]
        loads.append(Load(at_us=round(at), kind=kind, tasks_us=tasks))
    return Workload("kinds", machines, loads)


def _unlike() -> Workload:
    """Machines of power 1, 2 and 4, which their weights say."""
    rng = random.Random(5)
    machines = [Machine(usual=power, weight=power) for power in (1.0, 1.0, 2.0, 4.0)]
    loads = [
        Load(
            at_us=number * 600 * MS,
            kind="unlike",
            tasks_us=[round(rng.uniform(50, 350)) * MS for _ in range(40)],
        )
        for number in range(16)
    ]
    return Workload("unlike", machines, loads)


def _shared() -> Workload:
    """Machines on which others work at times, tasks that need memory, and data that must come."""
    rng = random.Random(6)
    machines = [
        Machine(memory_mib=4_000, foreign=((0, 12 * S, 0.8),)),
        Machine(memory_mib=4_000, foreign=((8 * S, 20 * S, 0.7),)),
        Machine(memory_mib=8_000),
        Machine(memory_mib=8_000),
    ]
    at, loads = 0.0, []
    for number in range(100):
        at += rng.expovariate(1 / (150 * MS))
        tasks = [round(rng.uniform(50, 450)) * MS for _ in range(rng.randint(1, 5))]
        memory, data = (3_000, 0) if number % 5 == 0 else (0, 8 if number % 3 == 0 else 0)
        load = Load(
            at_us=round(at), kind=f"k{number % 3}", tasks_us=tasks, memory_mib=memory, data_mib=data
        )
        loads.append(load)
    return Workload("shared", machines, loads)


WORKLOADS: Final = {
    made.name: made for made in (_even(), _uneven(), _arrivals(), _kinds(), _unlike(), _shared())
}

"""What it brings to begin late tasks once more, in virtual time: `placement_sim` with attempts that
straggle, and with the coordinator's plan of backups.

Owners say once a second what runs for long, as real ones do. A task that is taken from a peer ends
there at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from p2psched.core.backup_plan import BackupPlan
from p2psched.model.backing import Backing, Lagging, LaggingTask
from p2psched.model.commands import Command, Grant, Recorded, Revoked, Stamped
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec
from p2psched.testing.placement_sim import COMMIT_US, PlacedPeer, PlacementSim
from p2psched.testing.workloads import Load, Machine, S, Workload

REPORT_US: Final = 1_000_000
LAGGING_MS: Final = 1_000
SLOWER: Final = 10  # times as long takes what straggles
JOBS: Final = 40
SHARE: Final = 0.05  # of the attempts, or of the tasks, that do

What = tuple[JobId, Grant, int]
Slowness = Callable[[int, Grant], float]  # of a task, under a grant


class SpeculationSim(PlacementSim):
    def __init__(self, workload: Workload, slowness: Slowness, *, speculates: bool) -> None:
        self._speculates = speculates
        super().__init__(workload, "adaptive")
        self.busy_us = 0  # of all attempts, also those that were overtaken
        self.took_us: list[int] = []  # from the first start of each task to its result
        self.waited_us: list[int] = []  # from its submit to its result
        self.backups = 0
        self._slowness = slowness
        self._started: dict[tuple[JobId, int], int] = {}
        self._running: dict[What, tuple[PlacedPeer, int]] = {}
        self._plan = BackupPlan(self._fold, self._coordinator.takers)
        self._is_proposing = False
        self._after(REPORT_US, self._say)

    def _with_options(self, spec: JobSpec) -> JobSpec:
        backing = Backing(speculate=True) if self._speculates else None
        return msgspec.structs.replace(spec, backing=backing)

    # --- attempts ---

    def _begin(self, peer: PlacedPeer, what: What, took_us: int) -> None:
        job, grant, task = what
        took_us = round(took_us * self._slowness(task, grant))
        self._running[what] = peer, self._now_us
        self._started.setdefault((job, task), self._now_us)

        def end() -> None:
            if self._running.pop(what, None) is not None:
                self.busy_us += took_us
                self._end(peer, *what, took_us)

        self._after(took_us, end)

    def _count_end(self) -> None:
        """Not before it is recorded: another attempt may have ended first."""

    def _on_events(self, events: list[Stamped]) -> None:
        for stamped in events:
            event = stamped.event
            if isinstance(event, Revoked):
                for task in event.tasks:
                    self._take((event.job, event.grant, task), event.cause)
            elif isinstance(event, Recorded):
                for task in event.segment.tasks:
                    super()._count_end()
                    self.took_us.append(self._now_us - self._started[event.job, task])
                    self.waited_us.append(self._now_us - self._loads[event.job].at_us)
        super()._on_events(events)
        if self._speculates and self._fold.backed:
            self._plan.on_events(events)

    def _take(self, what: What, cause: Cause) -> None:
        known = self._running.pop(what, None)
        if known is None:
            for peer in self._peers.values():
                if what in peer.queue:
                    peer.queue.remove(what)
            return
        peer, since_us = known
        self.busy_us += self._now_us - since_us
        load = self._loads[what[0]]
        peer.busy -= load.cpus
        if cause is Cause.OVERTAKEN:  # so long at least
            self._measure(peer, load, self._now_us - since_us)
        self._start(peer)

    # --- the plan ---

    def _commit(self, *commands: Command) -> None:
        super()._commit(*commands)
        self._look()

    def _look(self) -> None:
        if self._is_proposing or not self._speculates or not self._fold.backed:
            return
        found = self._plan.round(self._now_us // 1_000)
        if found:
            self.backups += len(found)
            self._is_proposing = True
            self._after(COMMIT_US, lambda: self._propose(found))

    def _propose(self, commands: Sequence[Command]) -> None:
        self._is_proposing = False
        self._commit(*commands)

    def _say(self) -> None:
        """What each owner has to say."""
        now_ms = self._now_us // 1_000
        told: dict[PlacedPeer, list[LaggingTask]] = {}
        for (job, grant, task), (peer, since_us) in self._running.items():
            ran_ms = (self._now_us - since_us) // 1_000
            if ran_ms >= LAGGING_MS:
                told.setdefault(peer, []).append(LaggingTask(job, grant, task, ran_ms))
        for peer, tasks in told.items():
            tasks.sort(key=lambda task: -task.ran_ms)
            self._plan.stragglers.on_lagging(now_ms, peer.id, Lagging(tuple(tasks)))
        self._look()
        self._after(REPORT_US, self._say)


# --- where tails come from ------------------------------------------------------------------------


def some_attempts(task: int, grant: Grant) -> float:
    """One in twenty attempts takes far longer, wherever it is, and the next one of its task most
    likely does not: a slow disk, a neighbour, a bad moment."""
    is_slow = random.Random(f"attempt {task} {grant}").random() < SHARE
    return SLOWER if is_slow else 1.0


def some_tasks(task: int, grant: Grant) -> float:
    """One in twenty tasks takes far longer, whoever runs it: nothing is to be gained."""
    del grant
    return SLOWER if random.Random(f"task {task}").random() < SHARE else 1.0


def none(task: int, grant: Grant) -> float:
    del task, grant
    return 1.0


def jobs(machines: Sequence[Machine], *, apart_us: int = 15 * S, tasks: int = 30) -> Workload:
    """Jobs of like tasks, one after another, with slots to spare."""
    rng = random.Random("jobs that straggle")
    loads = [
        Load(
            at_us=number * apart_us,
            kind="train",
            tasks_us=[round(rng.uniform(0.8, 1.2) * 3 * S) for _ in range(tasks)],
        )
        for number in range(JOBS)
    ]
    return Workload("straggling", machines, loads)


EQUAL: Final = [Machine(slots=4)] * 10
# Each for a minute of ten, one after another: before what was measured there tells on it.
HICCUPS: Final = [
    Machine(slots=4, extra=((60 * S * number, 60 * S * (number + 1), 27 * S),))
    for number in range(10)
]


@dataclass(frozen=True, slots=True)
class Tail:
    """What came of a workload."""

    p99_us: int
    longest_us: int
    busy_us: int
    backups: int


def measure(machines: Sequence[Machine], slowness: Slowness, *, speculates: bool) -> Tail:
    sim = SpeculationSim(jobs(machines), slowness, speculates=speculates)
    sim.run()
    took_us = sorted(sim.took_us)
    return Tail(took_us[len(took_us) * 99 // 100], took_us[-1], sim.busy_us, sim.backups)

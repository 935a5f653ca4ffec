"""The executor of a simulation: tasks take drawn times and end in drawn ways.

What a task does is written in its job's name (`sim_job`), so that a run needs no side table. A
result carries job, index and grant: a referee can tell whose it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from p2psched.core.leasing import HoldLease
from p2psched.core.owner import StopBatch, TakeBack
from p2psched.core.pacing import EndTask
from p2psched.model import chunks
from p2psched.model.execution import (
    Batch,
    Ended,
    ExecutorEvent,
    GaveBack,
    Progress,
    Reports,
    Standing,
    TakenBack,
    TaskReport,
    Tending,
    Unbegun,
)
from p2psched.model.job import Cause, Segment
from p2psched.model.pace_rules import OnStall
from p2psched.model.taskset import TaskSet
from p2psched.testing.promises import demand
from p2psched.testing.sim_jobs import (
    KilledByTaskError,
    blobs_of,
    hangs,
    kills_its_peer,
    length_us,
    straggles,
    value_of,
)

REPORT_US: Final = 1_000_000
LOOKS_MAX: Final = 3  # at a silent task, until it must be about to end
STRAGGLES: Final = 20  # times as long
STOP_US_MAX: Final = 2_000_000  # SIGTERM, grace, SIGKILL
_FAILURES: Final = (Cause.EXIT, Cause.SIGNAL, Cause.EXCEPTION, Cause.TOO_LARGE)


class TasksEnd(msgspec.Struct, frozen=True):
    """The tasks of a batch that run now end."""

    batch: int


class BatchStops(msgspec.Struct, frozen=True):
    """The processes of a stopped batch are gone."""

    batch: int


class ComesBack(msgspec.Struct, frozen=True):
    """What has not begun is given back."""


class Tends(msgspec.Struct, frozen=True):
    """Something about the checkpoints of a batch is due: see `sim_checkpoints`."""

    batch: int
    what: str
    peer: str = ""


Change = StopBatch | HoldLease | TakeBack | EndTask
Work = TasksEnd | BatchStops | ComesBack | Tends


class _Run:
    __slots__ = ("batch", "begun", "ending", "left", "now", "overdue", "since_us", "stopping")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.left = list(batch.tasks)
        self.now: list[tuple[int, Cause, int]] = []  # task, how it will end, busy_us
        self.begun = False  # else it stands ready
        self.since_us = 0  # when its tasks of now began
        self.stopping = False
        self.ending = False  # its silent task is
        self.overdue = 0  # looks at which that was silent for too long


class Watching(Protocol):
    """See `sim_exclusive.Watch`."""

    ended: set[int]
    tell: Callable[[int], None]

    def may_begin(self, batch: Batch) -> bool: ...
    def begin(self, batch: Batch, index: int, busy_us: int | None) -> None: ...
    def renew(self, batch: int, until_ms: int) -> None: ...
    def over(self, batch: int) -> None: ...


Later = Callable[[int, Work], None]
OnStart = Callable[[Batch, int], None]  # batch, task


class SimExecutor:
    """One process's tasks. `later(delay_us, item)` brings `item` back to `on_due`. What has no slot
    stands ready, in order, until one is free. While there is no space, a large result is made and
    can't be kept."""

    def __init__(
        self,
        slots: int,
        rng: random.Random,
        later: Later,
        on_start: OnStart,
        *,
        has_space: Callable[[], bool] = lambda: True,
        watch: Watching | None = None,
        now_us: Callable[[], int] = lambda: 0,
    ) -> None:
        """`watch`: over exclusive tasks."""
        self._slots = slots
        self._rng = rng
        self._later = later
        self._on_start = on_start
        self._has_space = has_space
        self._watch = watch
        if watch is not None:
            watch.tell = lambda batch: self._later(1, BatchStops(batch))
        self._now_us = now_us
        self._looked_us = 0
        self._runs: dict[int, _Run] = {}
        self.stalled = 0  # nothing begins before somebody tends it so much: see `sim_stalls`

    def start(self, batch: Batch) -> None:
        self._runs[batch.id] = _Run(batch)
        self._begin_ready()

    def _begin_ready(self) -> None:
        """Begin what a slot is free for."""
        if self.stalled:
            return
        used = 0
        for run in list(self._runs.values()):
            cpus = min(run.batch.spec.cpus, self._slots)
            if not run.begun:
                if used + cpus > self._slots:
                    return
                if run.stopping:
                    continue
                run.begun = True
                self._begin(run)
            used += cpus

    def change(self, wanted: Change) -> None:
        if isinstance(wanted, EndTask):
            self._end_task(wanted)
        elif isinstance(wanted, StopBatch):
            self.stop(wanted.batch)
        elif isinstance(wanted, TakeBack):
            self.take_back()
        elif self._watch is not None:
            self._watch.renew(wanted.batch, wanted.until_ms)

    def standing(self) -> Standing:
        used, unbegun = 0, []
        for run in self._runs.values():
            used += min(run.batch.spec.cpus, self._slots)
            if not run.begun:
                reason = "" if used <= self._slots else "no slot"
                unbegun.append(Unbegun(run.batch.id, "a batch has not begun", reason))
        return Standing(frozenset(self._runs), tuple(unbegun))

    def tend(self, how: Tending) -> None:
        if how is Tending.ALL and any(run.begun for run in self._runs.values()):
            return
        if how >= self.stalled:
            self.stalled = 0
        self._begin_ready()

    def lose_one(self) -> bool:
        """Forget a batch of which nothing has begun, and never say a word of it."""
        found = [number for number, run in self._runs.items() if not run.begun and not run.stopping]
        for number in found[:1]:
            del self._runs[number]
        return bool(found)

    def look(self) -> list[Reports]:
        """Once a second: how long tasks have run, of jobs that want to know."""
        now_us = self._now_us()
        if now_us - self._looked_us < REPORT_US:
            return []
        self._looked_us = now_us
        found = []
        for number, run in self._runs.items():
            spec = run.batch.spec
            if not run.begun or run.stopping or not run.now:
                continue
            ran_ms = (now_us - run.since_us) // 1000
            if spec.pace is not None:
                quiet_ms = ran_ms if is_silent(run.batch, run.now[-1][0]) else 0
                watch_silence(run, quiet_ms)
                found.append(TaskReport(number, run.now[-1][0], ran_ms, quiet_ms))
            elif spec.speculates:
                found.append(TaskReport(number, run.now[0][0], ran_ms, ran_ms))
        return [Reports(tuple(found))] if found else []

    def _end_task(self, wanted: EndTask) -> None:
        """It is told to end, and its end is its result."""
        run = self._runs.get(wanted.batch)
        if run is None or run.stopping or run.ending:
            return
        index, _, _ = run.now[-1]
        silent = index == wanted.index and is_silent(run.batch, index)
        demand(silent, "E11", f"task {wanted.index} says how far it is, and is ended as silent")
        run.ending = True
        run.now[-1] = (index, wanted.cause, self._now_us() - run.since_us)
        delay_us = 1 + int(self._rng.random() ** 3 * STOP_US_MAX)
        self._later(delay_us, TasksEnd(wanted.batch))

    def take_back(self) -> None:
        self._later(1, ComesBack())

    def _give_back(self) -> list[ExecutorEvent]:
        """What has not begun."""
        events: list[ExecutorEvent] = []
        for number, run in reversed(list(self._runs.items())):
            spec = run.batch.spec
            if run.stopping or not run.left or spec.start or spec.checkpoint:
                continue
            rest, run.left = TaskSet.from_indices(run.left), []
            if run.begun:
                events.append(GaveBack(number, rest))
            else:
                del self._runs[number]
                events.append(Ended(number, rest))
        return [*events, TakenBack()]

    def stop(self, batch: int) -> None:
        run = self._runs.get(batch)
        if run is not None and not run.stopping:
            run.stopping = True
            self._later(int(self._rng.random() ** 3 * STOP_US_MAX), BatchStops(batch))

    def on_due(self, item: Work) -> list[ExecutorEvent]:
        """What to tell the owner now."""
        if isinstance(item, ComesBack):
            return self._give_back()
        assert not isinstance(item, Tends), "nothing of it is due here"
        run = self._runs.get(item.batch)
        if run is None or (run.stopping and isinstance(item, TasksEnd)):
            return []
        if run.batch.until_ms and self._watch is not None:
            if item.batch in self._watch.ended and isinstance(item, TasksEnd):
                return []  # it was ended before
            self._watch.over(item.batch)
        if isinstance(item, BatchStops):
            del self._runs[item.batch]
            self._begin_ready()
            return [Ended(item.batch, TaskSet.from_indices(run.left))]
        batch = run.batch
        if any(kills_its_peer(batch.spec.name, batch.job, index) for index, _, _ in run.now):
            raise KilledByTaskError
        if not self._has_space():
            run.now = [(index, _on_full(batch, index, end), us) for index, end, us in run.now]
        events: list[ExecutorEvent] = [Progress(item.batch, _segments(run))]
        if run.left:
            self._begin(run)
        else:
            del self._runs[item.batch]
            events.append(Ended(item.batch, TaskSet()))
            self._begin_ready()
        return events

    def _begin(self, run: _Run) -> None:
        """Run the next task, or a few short ones that are reported together."""
        rng, spec, watch = self._rng, run.batch.spec, self._watch
        if run.batch.until_ms and watch is not None and not watch.may_begin(run.batch):
            run.stopping = True
            self._later(1, BatchStops(run.batch.id))
            return
        mean_us, fail_permille, *_ = map(int, spec.name.split())
        count = 1 if mean_us > 5_000 else rng.randint(1, 4)
        indices, run.left = run.left[:count], run.left[count:]
        run.now, run.since_us = [], self._now_us()
        run.ending, run.overdue = False, 0
        limit_us = spec.timeout_ms * 1000 if spec.timeout_ms is not None else None
        for position, index in enumerate(indices, start=1):
            failed = fail_permille and rng.randrange(1000) < fail_permille
            cause = rng.choice(_FAILURES) if failed else Cause.OK
            drawn_us = 1 + int(rng.random() * 2 * mean_us)
            busy_us = length_us(spec.name, index) or drawn_us
            if spec.speculates and straggles(run.batch, index):
                busy_us *= STRAGGLES
            busy_us = self._busy_us(run, busy_us)
            hung = hangs(spec.name, run.batch.job, index, run.batch.grant)
            if limit_us is not None and (hung or busy_us > limit_us):
                cause, busy_us = Cause.TIMEOUT, limit_us
            run.now.append((index, cause, busy_us))
            self._on_start(run.batch, index)
            if run.batch.until_ms and watch is not None:
                watch.begin(run.batch, index, None if hung and limit_us is None else busy_us)
            if hung:  # those behind it have to wait, and for ever if there is no limit
                run.left = [*indices[position:], *run.left]
                if limit_us is None:
                    return
                break
        self._later(sum(busy for _, _, busy in run.now), TasksEnd(run.batch.id))

    def _busy_us(self, _run: _Run, whole_us: int) -> int:
        """What is left of a task that takes so long from its beginning."""
        return whole_us


def is_silent(batch: Batch, index: int) -> bool:
    """It never ends by itself, and says nothing."""
    return hangs(batch.spec.name, batch.job, index, batch.grant) and batch.spec.timeout_ms is None


def watch_silence(run: _Run, quiet_ms: int) -> None:
    """E11: what is silent for too long is ended, where its job asks for that."""
    rules = run.batch.spec.pace
    if rules is None or rules.heartbeat_ms is None or rules.on_stall is not OnStall.ELSEWHERE:
        return
    if quiet_ms < rules.heartbeat_ms or run.ending:
        return
    run.overdue += 1
    what = f"task {run.batch.job}/{run.now[-1][0]} is silent for {quiet_ms} ms, and goes on"
    demand(run.overdue < LOOKS_MAX, "E11", what)


def _on_full(batch: Batch, index: int, cause: Cause) -> Cause:
    """How a task ends whose peer has a full disk."""
    return Cause.NO_SPACE if cause is Cause.OK and blobs_of(batch, index) else cause


def _segments(run: _Run) -> tuple[Segment, ...]:
    """Neighbours that ended alike are one segment."""
    segments: list[Segment] = []
    group: list[tuple[int, Cause, int]] = []
    for ended in [*run.now, None]:
        if group and (ended is None or ended[:2] != (group[-1][0] + 1, group[-1][1])):
            values = [value_of(run.batch, index) for index, _, _ in group]
            busy = sum(us for _, _, us in group)
            first, last, cause = group[0][0], group[-1][0], group[0][1]
            blobs = tuple(
                blob
                for index, _, _ in (group if cause is Cause.OK else [])
                for blob in blobs_of(run.batch, index)
            )
            segments.append(Segment(first, last + 1, cause, chunks.pack(values), busy, blobs))
            group = []
        if ended is not None:
            group.append(ended)
    return tuple(segments)

"""Exclusive jobs of a simulation, and whoever watches over their tasks on a simulated machine.

The watch is what `run/host` is to a real peer: it goes on while its peer stands still, ends what
has no lease any more by the clock of the machine, and is a little late. What it does is no event of
the peer, which hears of it when it can.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from p2psched.model.cause import Cause
from p2psched.model.execution import Batch
from p2psched.model.ids import PeerId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.once import Start
from p2psched.model.retry import RetryPolicy, RetryRule
from p2psched.testing.exclusive_referee import ExclusiveReferee, Running
from p2psched.testing.sim_jobs import kills_none, may_hang, with_hangs, with_kills, with_mean

if TYPE_CHECKING:
    from p2psched.testing.referees import Referees

JOBS_MAX: Final = 6
TASKS_MAX: Final = 3  # of a job whose tasks are made longer than its lease
LONG_US: Final = 4_000_000
LONG_US_MAX: Final = 12_000_000  # of slots, by all of these
LEASES_MS: Final = (3_000, 3_000, 5_000, 8_000)
KILLER_LEASE_MS: Final = 3_000
LATE_MS_MAX: Final = 200  # that a watch ends something after its time
DRIFT_MAX: Final = 0.0005  # see `Faults.drift_ppm`


class Machines(Protocol):
    """The cluster, as far as a watch needs it."""

    now_us: int
    happened: Counter[str]

    @property
    def referees(self) -> Referees: ...
    def after(self, delay_ms: float, act: Callable[[], None]) -> None: ...


class Machine(Protocol):
    """That a process runs on."""

    number: int
    process: int
    suspended_us: int | None  # since when it sleeps, if it does

    @property
    def id(self) -> PeerId: ...
    @property
    def now_ms(self) -> int:
        """Its boot clock."""
        ...


class _Watched(Running):
    def __init__(
        self,
        batch: Batch,
        index: int,
        peer: PeerId,
        is_asleep: Callable[[], bool],
        ends_us: int | None,
    ) -> None:
        super().__init__((batch.job, index), peer, is_asleep)
        self.batch = batch.id
        self.until_ms = batch.until_ms
        self.ends_us = ends_us  # by itself, in true time; None: never
        self.is_late = False
        self.is_over = False


class Watch:
    """Of one process and its machine."""

    def __init__(self, world: Machines, machine: Machine) -> None:
        self._world = world
        self._rng = random.Random(f"watch {machine.id} {machine.process}")
        self._machine = machine
        self._peer = machine.id
        self._watched: dict[int, _Watched] = {}
        self.ended: set[int] = set()  # batches whose task it has ended
        self.tell: Callable[[int], None] = lambda _batch: None  # that it has ended this one

    def _now_ms(self) -> int:
        return self._machine.now_ms

    def _is_asleep(self) -> bool:
        return self._machine.suspended_us is not None

    @property
    def _referee(self) -> ExclusiveReferee:
        return self._world.referees.exclusive

    def may_begin(self, batch: Batch) -> bool:
        return self._now_ms() < batch.until_ms

    def begin(self, batch: Batch, index: int, busy_us: int | None) -> None:
        ends_us = None if busy_us is None else self._world.now_us + busy_us
        watched = _Watched(batch, index, self._peer, self._is_asleep, ends_us)
        self._watched[batch.id] = watched
        self._world.happened["exclusive tasks begun"] += 1
        self._referee.on_begun(watched)
        self._arm(watched)

    def renew(self, batch: int, until_ms: int) -> None:
        watched = self._watched.get(batch)
        if watched is not None:
            self._world.happened["leases renewed"] += 1
            watched.until_ms = max(watched.until_ms, until_ms)

    def over(self, batch: int) -> None:
        """Its peer saw it end, or has ended it."""
        watched = self._watched.get(batch)
        if watched is not None:
            self._end(watched)

    def leases(self) -> list[tuple[Running, float]]:
        """What runs now, and for how many ms of true time more at most, if nothing is renewed."""
        now_us = self._world.now_us
        found: list[tuple[Running, float]] = []
        for watched in self._watched.values():
            left_ms = (watched.until_ms - self._now_ms()) * (1 + DRIFT_MAX) + LATE_MS_MAX
            if watched.ends_us is not None:
                left_ms = min(left_ms, (watched.ends_us - now_us) / 1000)
            if left_ms > 0:
                found.append((watched, left_ms))
        return found

    def die(self) -> None:
        """With its peer, all that it watches over ends."""
        for watched in list(self._watched.values()):
            self._end(watched)

    def wake(self, slept_us: int) -> None:
        """The machine has slept. What has no lease any more ends before it does anything."""
        for watched in list(self._watched.values()):
            if watched.ends_us is not None:
                watched.ends_us += slept_us
            if self._now_ms() >= watched.until_ms:
                self._kill(watched)
            else:
                self._referee.check(watched)
                self._arm(watched)

    def _arm(self, watched: _Watched) -> None:
        left_ms = float(max(1, watched.until_ms - self._now_ms()))
        if watched.ends_us is not None:
            left_ms = min(left_ms, max(0, watched.ends_us - self._world.now_us) / 1000)
        self._world.after(left_ms, lambda: self._look(watched))

    def _look(self, watched: _Watched) -> None:
        if watched.is_over or self._is_asleep():
            return
        if watched.ends_us is not None and self._world.now_us >= watched.ends_us:
            self._end(watched)
        elif self._now_ms() < watched.until_ms:
            self._arm(watched)
        elif not watched.is_late:
            watched.is_late = True
            self._world.after(late_ms(self._rng), lambda: self._look(watched))
        else:
            self._kill(watched)

    def _kill(self, watched: _Watched) -> None:
        self._world.happened["ended where the lease was over"] += 1
        self.ended.add(watched.batch)
        self._end(watched)
        self.tell(watched.batch)

    def _end(self, watched: _Watched) -> None:
        watched.is_over = True
        del self._watched[watched.batch]
        self._referee.on_over(watched)


def late_ms(rng: random.Random) -> int:
    return rng.randrange(LATE_MS_MAX)


class Cluster(Machines, Protocol):
    @property
    def peers(self) -> Sequence[Watching]: ...


class Watching(Machine, Protocol):
    watch: Watch


def left_running(before: Cluster, after: Cluster) -> None:
    """`after` begins now, from a copy of `before`. What ran there does so for its lease."""
    for peer in before.peers:
        is_asleep = peer.suspended_us is not None
        for there, left_ms in peer.watch.leases():
            running = Running(there.task, there.peer, partial(bool, is_asleep))
            after.referees.exclusive.on_begun(running)
            after.after(left_ms, partial(after.referees.exclusive.on_over, running))
            after.happened["exclusive tasks of before"] += 1


class Exclusives:
    """Drawn apart: a seed without such jobs is the run that it was before there were any."""

    def __init__(self, world: Machines, seed: int, jobs: int | None, *, poison: bool) -> None:
        """`jobs`: None: drawn. `poison`: a task of one of them may kill its peers, too."""
        self._world = world
        self._rng = random.Random(f"exclusives {seed}")
        drawn = self._rng.choice((0, 0, JOBS_MAX))
        self._jobs_left = drawn if jobs is None else jobs
        self._long_us = LONG_US_MAX
        self._killers = random.Random(f"exclusive killers {seed}")
        self._killers_left = self._killers.choice((0, 1)) * poison

    def draw(self, spec: JobSpec) -> JobSpec:
        is_fit = spec.hold is None and not spec.start and kills_none(spec.name)
        if not self._jobs_left or not is_fit or self._rng.random() < 0.3:
            return spec
        self._jobs_left -= 1
        self._world.happened["job that is exclusive"] += 1
        if isinstance(spec.work, ProgramWork):
            spec = replace(spec, tasks=spec.tasks.take(TASKS_MAX))
        if len(spec.tasks) <= TASKS_MAX and spec.timeout_ms is None:
            cost_us = LONG_US * len(spec.tasks) * (1 + spec.retries)
            if self._rng.random() < 0.7:  # until somebody cancels it
                spec = with_hangs(spec, hang_permille=700, timeout_ms=None)
            elif cost_us <= self._long_us and spec.retry is None:
                self._long_us -= cost_us
                spec = replace(spec, name=with_mean(spec.name, LONG_US))
        retry = spec.retry
        if self._rng.random() < 0.3:
            rule = RetryRule(Cause.LEASE_LOST, self._rng.randrange(4))
            retry = RetryPolicy((*(retry.rules if retry is not None else ()), rule))
        lease_ms = self._rng.choice(LEASES_MS)
        spec = replace(spec, start=Start.EXCLUSIVE, lease_ms=lease_ms, retry=retry)
        return self._draw_killer(spec) if self._killers_left else spec

    def _draw_killer(self, spec: JobSpec) -> JobSpec:
        if may_hang(spec.name) or self._killers.random() < 0.3:
            return spec
        self._killers_left -= 1
        self._world.happened["exclusive job that kills"] += 1
        name = with_kills(spec.name, 1_000 // len(spec.tasks))
        return replace(spec, name=name, lease_ms=KILLER_LEASE_MS)

"""Followers of a simulated cluster: the same core as a real one's, between its network and its
tasks. They come beside the peers, and have faults of their own: kills, sleeps, and links that all
break at once.

The referees judge what they start as what any peer starts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2psched.core.feed import Say
from p2psched.core.follower import Follower
from p2psched.core.follower_events import FollowerEffect, FollowerEvent, Passed, Told
from p2psched.core.leasing import HoldLease
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.owner import CopyBlobs, Owner, StartBatch, StopBatch, TakeBack
from p2psched.core.pacing import EndTask
from p2psched.core.scheduler_events import (
    Copied,
    Executed,
    Noticed,
    Renewed,
    RenewIncarnation,
    Round,
    Tend,
    Watched,
)
from p2psched.core.separation_effects import KeepOwned, KeepResults, Reported, SpoolDecided
from p2psched.core.state import LedgerState
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import PeerInfo
from p2psched.model.errors import Refused
from p2psched.model.execution import Batch
from p2psched.model.feed_messages import Feed, FeedElsewhere
from p2psched.model.ids import PeerId, new_id
from p2psched.model.steal_messages import StealMessage
from p2psched.testing.faults import Faults
from p2psched.testing.promises import demand
from p2psched.testing.sim_blobs import SimBlobs
from p2psched.testing.sim_cutoff import Notes
from p2psched.testing.sim_drains import is_drained
from p2psched.testing.sim_exclusive import Watch
from p2psched.testing.sim_executor import Change, SimExecutor, Work
from p2psched.testing.sim_items import Arrived, SimClock, decode_wire
from p2psched.testing.sim_jobs import KilledByTaskError
from p2psched.testing.sim_levels import NEWER_LEVEL
from p2psched.testing.sim_needs import offers_of
from p2psched.testing.sim_stealing import Views

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

CLOCK_US: Final = 100_000
TURN_US: Final = 30
AWAY_MS_MAX: Final = 6_000  # asleep, or cut off
RESTART_MS_MAX: Final = 2_000


class SimFollower:
    """A folder without a ledger and, while `alive`, a process on it."""

    def __init__(self, cluster: SimCluster, number: int, *, slots: int) -> None:
        self._cluster = cluster
        self.rng = random.Random(f"follower {number} {cluster.seed}")
        self.number = number
        self.id = PeerId(new_id(self.rng))
        self.slots = slots
        self.blobs = SimBlobs(self.id)
        self.notes = Notes()
        self.alive = self.paused = self.cut = False
        self.suspended_us: int | None = None  # as of a peer; its machine never sleeps
        self.process = 0
        self.leaving = False
        self.last_batch = 0
        self._incarnation = 0
        self._level = KNOWN_LEVEL
        self._clock = SimClock(self.rng, cluster.faults.drift_ppm)
        self._turn_is_due = False
        self._backlog: list[Callable[[], None]] = []
        self.views: Views | None = None
        cluster.referees.keeping.disks[self.id] = self.blobs

    @property
    def state(self) -> LedgerState:
        return self.follower.machine

    @property
    def owner(self) -> Owner:
        return self.follower.owner

    @property
    def cursor(self) -> int:
        return self.follower.cursor

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms(self._cluster.now_us)

    # --- the life of a process ---

    def boot(self) -> None:
        """Start a process, which knows the members of now."""
        if self.alive:
            return
        cluster = self._cluster
        self.alive = True
        self.process += 1
        self._incarnation += 1
        self._turn_is_due = False
        info = PeerInfo(
            *(self.id, self._incarnation, f"follower-{self.number}", "", 0, self.slots, "0", "3"),
            level=self._level,
        )
        self.follower = Follower(
            *(info, cluster.newest_group(), None, offers_of(self.number)),
            max_disconnect_ms=cluster.max_disconnect_ms,
        )
        self.watch = Watch(cluster, self)
        self.executor = SimExecutor(
            *(self.slots, self.rng, self._later_work, self._on_started),
            watch=self.watch,
            now_us=lambda: cluster.now_us,
        )
        for event in self.notes.begin(cluster.now_us, self.now_ms):
            self._decide(event)
        self._later(1 + self.rng.randrange(CLOCK_US), self._on_clock)

    def kill(self) -> None:
        """kill -9; it starts again by itself."""
        if not self.alive:
            return
        cluster = self._cluster
        cluster.happened["followers killed"] += 1
        cluster.referees.poison.on_away(self.id, self.follower.info.incarnation)
        self.watch.die()
        self.alive = self.paused = False
        self.process += 1
        self._backlog.clear()
        cluster.after(1 + self.rng.random() ** 2 * RESTART_MS_MAX, self.boot)

    def sleep(self, duration_ms: float) -> None:
        """As SIGSTOP does: what comes meanwhile waits."""
        if self.alive and not self.paused:
            self._cluster.happened["followers paused"] += 1
            self.paused = True
            process = self.process
            self._cluster.after(
                duration_ms, lambda: self.wake() if self.process == process else None
            )

    def wake(self) -> None:
        self.paused = False
        backlog, self._backlog = self._backlog, []
        for act in backlog:
            act()

    def cut_off(self, duration_ms: float) -> None:
        """Everything that is sent to it or by it is lost for a while."""
        self._cluster.happened["followers cut off"] += 1
        self.cut = True
        self._cluster.after(duration_ms, self.join_again)

    def join_again(self) -> None:
        self.cut = False

    def _later(self, delay_us: int, act: Callable[[], None]) -> None:
        process = self.process

        def due() -> None:
            if self.process != process:
                return
            if self.paused:
                self._backlog.append(due)
            else:
                act()

        self._cluster.after(delay_us / 1000, due)

    # --- what comes in ---

    def arrive(self, arrived: Arrived) -> None:
        if not self.alive or self.cut:
            return
        if self.paused:
            self._backlog.append(lambda: self.arrive(arrived))
            return
        message = decode_wire(arrived.data)
        if isinstance(message, Feed | FeedElsewhere | StealMessage):
            try:
                self._decide(Told(self.now_ms, arrived.sender, message))
            except Refused:  # the ledger uses what its version doesn't know
                self._cluster.happened["stopped by its level"] += 1
                self._level = NEWER_LEVEL
                self.kill()
            else:
                if self._is_led:  # now, and not at the next look
                    self._cluster.cutoff.on_clock(self.id, self._cluster.now_us, led=True)

    @property
    def _is_led(self) -> bool:
        return self.follower.is_fed and self.follower.leader is not None

    def _on_clock(self) -> None:
        cluster = self._cluster
        if not self.follower.is_fed and not any(map(cluster.is_there, self.follower.feeders())):
            cluster.happened["followers that knew nobody any more"] += 1
            self.kill()  # whoever starts it again names it a peer that is there
            return
        self.notes.mark(cluster.now_us, self.follower.separation.away_ms)
        cluster.cutoff.on_clock(self.id, cluster.now_us, led=self._is_led)
        self._later(CLOCK_US, self._on_clock)
        for report in self.executor.look():
            self._decide(Executed(self.now_ms, report))
        self._decide(Passed(self.now_ms, seen=self.views.look(self.now_ms) if self.views else {}))
        if self.follower.watching.watchdog.is_due(self.now_ms):
            self._decide(Watched(self.now_ms, self.executor.standing()))

    def _later_work(self, delay_us: int, item: Work) -> None:
        self._later(delay_us, lambda: self._on_work(item))

    def _on_work(self, item: Work) -> None:
        try:
            events = self.executor.on_due(item)
        except KilledByTaskError:
            self._cluster.happened["killed by a task"] += 1
            self.kill()
            return
        for event in events:
            self._decide(Executed(self.now_ms, event))

    def _on_started(self, batch: Batch, index: int) -> None:
        self._cluster.happened["started by followers"] += 1
        self._cluster.on_started(self, batch, index)

    # --- the core ---

    def _decide(self, event: FollowerEvent) -> None:
        self._perform(self.follower.step(event))
        if not self._turn_is_due and not isinstance(event, Round):
            self._turn_is_due = True
            self._later(TURN_US, self._end_turn)

    def _end_turn(self) -> None:
        self._turn_is_due = False
        self._decide(Round(self.now_ms))

    def _perform(self, effects: list[FollowerEffect]) -> None:
        for effect in effects:
            match effect:
                case Say(to=to, message=message):
                    if not self.cut:
                        self._cluster.say(self, to, message)
                case StartBatch() | StopBatch() | HoldLease() | TakeBack() | EndTask():
                    self._execute(effect)
                case CopyBlobs(number=number, blobs=blobs):
                    self._keep(number, blobs)
                case RenewIncarnation():
                    self._incarnation += 1
                    self._later(1, self._renewer(self._incarnation))
                case KeepOwned() | KeepResults() | SpoolDecided() | Reported():
                    self.notes.perform(effect, self, self._cluster.cutoff)
                case Tend() | Noticed():
                    self._cluster.stalls.attend(self, effect)
                case _:
                    raise AssertionError(f"a follower does not do {effect}")

    def _execute(self, effect: StartBatch | Change) -> None:
        if isinstance(effect, StartBatch):
            starts_nothing = self.leaving or is_drained(self)
            self.last_batch = self.last_batch if starts_nothing else effect.batch.id
            self.executor.start(effect.batch)
        else:
            self.executor.change(effect)

    def _renewer(self, incarnation: int) -> Callable[[], None]:
        return lambda: self._decide(Renewed(self.now_ms, incarnation))

    def _keep(self, number: int, blobs: tuple[ResultBlob, ...]) -> None:
        """Large results: here, and nowhere else before somebody makes up for it."""
        for blob in blobs:
            self.blobs.put(blob.ref.digest)
        held = tuple(ResultBlob(b.index, b.name, b.ref, (self.id,)) for b in blobs)
        self._later(1_000, lambda: self._decide(Copied(self.now_ms, number, held)))


class Followers:
    """Of one cluster, in some seeds. Drawn apart: all else is drawn as without."""

    def __init__(self, cluster: SimCluster, count: int | None = None) -> None:
        self._cluster = cluster
        self._faults = cluster.faults
        self._rng = rng = random.Random(f"followers {cluster.seed}")
        drawn = rng.choice((0, 0, 1, 3))
        self.all = [
            SimFollower(cluster, len(cluster.peers) + n, slots=rng.randint(1, 3))
            for n in range(drawn if count is None else count)
        ]
        views = Views(cluster)
        for follower in self.all:
            follower.views = views
            cluster.guests[follower.id] = follower
            cluster.after(rng.randrange(1, 2_000), follower.boot)
        cluster.happened["followers"] = len(self.all)
        if self.all and cluster.faults != Faults():
            self._later(rng.choice((300, 1_000, 4_000)))

    def _later(self, every_ms: int) -> None:
        def again() -> None:
            if self._cluster.faults is self._faults:  # healed otherwise
                self._hurt(self._rng.choice(self.all))
                self._later(every_ms)

        self._cluster.after(self._rng.expovariate(1 / every_ms), again)

    def _hurt(self, follower: SimFollower) -> None:
        away_ms = self._rng.random() ** 2 * AWAY_MS_MAX
        self._rng.choice(
            (follower.kill, lambda: follower.sleep(away_ms), lambda: follower.cut_off(away_ms))
        )()

    def heal(self) -> None:
        for follower in self.all:
            follower.wake()
            follower.join_again()

    @property
    def is_busy(self) -> bool:
        """Not all are up and fed, or one works still, has not been told yet that a job ended, or
        has not said yet what became of what it had while it was cut off."""
        return not all(
            follower.alive
            and follower.follower.is_fed
            and not follower.follower.owner.held()
            and not follower.follower.machine.jobs
            and not follower.follower.separation.is_open
            for follower in self.all
        )

    def check_end(self) -> None:
        for follower in self.all:
            held = follower.follower.owner.held()
            demand(not held, "L5", f"follower {follower.number} still works on {held}")
            jobs = list(follower.follower.machine.jobs)
            demand(not jobs, "L5", f"follower {follower.number} keeps ended jobs {jobs}")

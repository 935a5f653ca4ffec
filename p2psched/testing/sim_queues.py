"""Producers and consumers of queues in a simulation: each asks whatever peer answers, and again at
others under the same number. Some forget what they took, or come too late, or let their leases end.

When faults end, consumers go on until nothing is left but dead letters.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2psched.model.actions import Action
from p2psched.model.ids import new_id
from p2psched.model.lease_actions import KeepLeases, TakeLease
from p2psched.model.queue_actions import (
    DEAD,
    AckItems,
    ConfigureQueue,
    ExtendItems,
    NackItems,
    NewItem,
    PutItems,
    RedriveItems,
    StopTaking,
    TakeItems,
)
from p2psched.testing.faults import Faults
from p2psched.testing.sim_acts import Heard, SimActor

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

SHARE: Final = 0.06  # of the seeds
QUEUES: Final = ("one", "two")
PUTS_MAX: Final = 12
LOOK_MS: Final = 150  # of a consumer that waits


def start_queues(cluster: SimCluster) -> None:
    """In some seeds. Drawn apart: all else of the seed is drawn as without."""
    rng = random.Random(f"queues {cluster.seed}")
    if rng.random() >= SHARE:
        return
    traffic = Traffic(cluster, rng)
    for _ in range(rng.randint(1, 2)):
        Producer(traffic).begin()
    for _ in range(rng.randint(1, 3)):
        Consumer(traffic).begin()


class Traffic:
    """What all of them share. The simulation waits for its end as for an answer."""

    def __init__(self, cluster: SimCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.books = cluster.referees.queues
        self._faults: Faults = cluster.faults
        self.putting = 0  # producers that have not ended
        self._is_over = False
        cluster.callers.waiting += 1

    @property
    def is_peaceful(self) -> bool:
        return self.cluster.faults is not self._faults

    def look(self) -> bool:
        """True once nothing is left to do."""
        if not self._is_over and self.is_peaceful and not self.putting and not self.books.left:
            self._is_over = True
            self.cluster.callers.waiting -= 1
            self.cluster.happened["queue items acked"] += len(self.books.acked)
            self.cluster.happened["queue items died"] += self.books.died
        return self._is_over

    def count(self, what: str) -> None:
        self.cluster.happened[f"queues: {what}"] += 1


class Caller(ABC):
    """Does one thing after another."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.rng = traffic.rng
        self._actor = SimActor(traffic.cluster, traffic.rng)

    def begin(self) -> None:
        self.later(1_000, self.go_on)

    def later(self, most_ms: int, act: Callable[[], None]) -> None:
        self.traffic.cluster.after(self.rng.randrange(1, most_ms), act)

    def act(self, action: Action, heard: Heard) -> None:
        self._actor.act(action, heard)

    @abstractmethod
    def go_on(self) -> None:
        """The next thing."""


class Producer(Caller):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__(traffic)
        traffic.putting += 1
        self._left = self.rng.randint(1, PUTS_MAX)
        self._begun = False
        self._pause_ms = self.rng.choice((50, 500, 2_000))

    def go_on(self) -> None:
        if not self._left or self.traffic.is_peaceful:
            self.traffic.putting -= 1
            return
        self._left -= 1
        self._begun, is_first = True, not self._begun
        rng = self.rng
        queue = rng.choice(QUEUES)
        draw = rng.random()
        action: Action = PutItems(queue, tuple(self._item() for _ in range(rng.randint(1, 3))))
        if draw < (0.7 if is_first else 0.15):
            action = ConfigureQueue(queue, rng.choice((0, 1, 1, 2, 20)))
        elif draw < 0.2:
            action = RedriveItems(queue, rng.randint(1, 3))
        self.act(action, lambda _: self.later(self._pause_ms, self.go_on))

    def _item(self) -> NewItem:
        rng = self.rng
        return NewItem(
            b"x",
            rng.choice((0, 0, 0, 3)),
            rng.choice(("", "k", "k", "l")),
            rng.choice((0, 0, 0, 700)),
        )


class Consumer(Caller):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__(traffic)
        self._lease = ""
        self._claim = ""

    def go_on(self) -> None:
        rng = self.rng
        if self.traffic.look():
            return
        draw = rng.random() + 0.3 * self.traffic.is_peaceful
        if draw < 0.15:
            self._lease = new_id(rng)
            self.act(TakeLease(self._lease, rng.choice((1_000, 3_000))), self._pause)
        elif draw < 0.3 and self._lease:
            self.act(KeepLeases((self._lease,)), self._pause)
        else:
            self._take()

    def _pause(self, _: object = None) -> None:
        self.later(80 if self.traffic.is_peaceful else 500, self.go_on)

    def _take(self) -> None:
        rng = self.rng
        self._claim = new_id(rng)
        queue = rng.choice(QUEUES)
        if self.traffic.is_peaceful:
            queue = self.traffic.books.fullest or queue
        elif rng.random() < 0.1:
            queue += DEAD
        lease = self._lease if rng.random() < 0.5 else ""
        visible_ms = rng.choice((300, 1_000, 3_000))
        if lease and rng.random() < 0.3:
            visible_ms = 0
        wait_ms = rng.choice((0, 500, 3_000))
        take = TakeItems(queue, self._claim, rng.randint(1, 3), visible_ms, wait_ms, lease)
        # The answer leaves a peer just before the books hear of its entry.
        self.act(take, lambda _: self.later(5, lambda: self._look(take)))

    def _look(self, take: TakeItems) -> None:
        """As a peer would tell it."""
        if self.traffic.books.waits(take.claim):
            if self.rng.random() < 0.05:
                self.act(StopTaking(take.claim), self._pause)
            else:
                self.later(LOOK_MS, lambda: self._look(take))
            return
        receipts = tuple(self.traffic.books.held(take.claim))
        if not receipts:
            self._pause()
            return
        self.traffic.count("taken")
        draw = self.rng.random() * (1 if not self.traffic.is_peaceful else 0.6)
        if draw < 0.6:
            self.act(AckItems(take.queue, receipts), self._pause)
        elif draw < 0.75:
            delay_ms = self.rng.choice((0, 0, 400))
            self.act(NackItems(take.queue, receipts, delay_ms), self._pause)
        elif draw < 0.8:
            self.act(ExtendItems(take.queue, receipts, 500), self._pause)
        elif draw < 0.85:
            self.act(StopTaking(take.claim), self._pause)
        elif draw < 0.95:  # too late, mostly
            late_ms = 3 * max(take.visibility_ms, 300)
            self.later(late_ms, lambda: self.act(AckItems(take.queue, receipts), self._pause))
        else:  # it has forgotten it
            self._pause()

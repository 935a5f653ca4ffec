"""Callers of a simulated cluster that hold locks: each with a clock of its own, through any peer.

They act as clients do: what has no answer is repeated under its number at another peer, leases are
renewed, and counted by the caller's own clock from when a renewal was sent. They are cut off, die,
and freeze; a frozen one stays where it is, and finds out when it goes on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from p2psched.model.actions import Act, Acted, Action, ActionAnswer
from p2psched.model.commands import Outcome, Rejected
from p2psched.model.ids import new_id
from p2psched.model.lease_actions import (
    EndLease,
    Enrol,
    Enrolled,
    KeepLeases,
    LeasesKept,
    TakeLease,
    margin_ms,
)
from p2psched.model.lock_actions import AcquireLock, LockHeld, LockWaiting, ReleaseLock
from p2psched.testing.lock_referee import Section

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

LOCKS: Final = (("plain", 1), ("plain", 1), ("page", 1), ("three", 3))
TTLS_MS: Final = (1_000, 2_000, 4_000)
AGAIN_MS_MAX: Final = 1_200  # without an answer
POLL_MS_MAX: Final = 150
STAY_MS_MAX: Final = 3_000
PAUSE_MS_MAX: Final = 300
FROZEN_MS_MAX: Final = 8_000
CUT_MS_MAX: Final = 6_000
SKEW: Final = 0.01  # of a caller's clock, too fast or too slow

Done = Callable[[ActionAnswer | Rejected], None]


class SimLease:
    """As its holder knows it."""

    def __init__(self, name: str, ttl_ms: int, sent_ms: float) -> None:
        self.name = name
        self.ttl_ms = ttl_ms
        self.until_ms = 0.0  # of the caller's clock
        self.renewed(sent_ms)

    def renewed(self, sent_ms: float) -> None:
        self.until_ms = max(self.until_ms, sent_ms + self.ttl_ms - margin_ms(self.ttl_ms))


class LockUser:
    """One caller. It takes one lock after another, until `stop`."""

    def __init__(self, cluster: SimCluster, number: int) -> None:
        self._cluster = cluster
        self._rng = rng = random.Random(f"lock user {number} {cluster.seed}")
        self._rate = 1 + rng.uniform(-SKEW, SKEW)
        self._origin_ms = rng.randrange(10**9)
        self.number = number
        self.is_cut = self.is_frozen = self.is_dead = self.is_done = False
        self._stopped = False
        self._deferred: list[Callable[[], None]] = []
        self._caller = 0
        self._next_number = 1
        self._open: dict[int, None] = {}  # acts without an answer, lowest first
        self._lease: SimLease | None = None
        self._section: Section | None = None
        self._turn = 0  # which of its claims it waits for: what comes for an earlier one is late
        self.later(rng.randrange(1, 500), self._enrol)

    # --- its life ---

    def now_ms(self) -> float:
        return self._origin_ms + self._cluster.now_us * self._rate / 1000

    @property
    def is_inside(self) -> bool:
        return self._section is not None

    def later(self, delay_ms: float, do: Callable[[], None]) -> None:
        def wake() -> None:
            if self.is_frozen:
                self._deferred.append(do)
            elif not self.is_dead:
                do()

        self._cluster.after(delay_ms, wake)

    def freeze(self, for_ms: float) -> None:
        if self.is_frozen or self.is_dead:
            return
        self.is_frozen = True
        if self._section is not None:
            self._section.is_frozen = True
        self._cluster.after(for_ms, self.thaw)

    def thaw(self) -> None:
        if not self.is_frozen or self.is_dead:
            return
        self.is_frozen = False
        section = self._section
        if section is not None:
            self._write(section)  # it was about to
            if self._is_held():
                section.is_frozen = False
            else:
                self._leave()
                self._release(self._wish)
        deferred, self._deferred = self._deferred, []
        for do in deferred:
            do()

    def cut_off(self, for_ms: float) -> None:
        self.is_cut = True
        self._cluster.after(for_ms, self.reconnect)

    def reconnect(self) -> None:
        self.is_cut = False

    def die(self) -> None:
        self.is_dead = True
        if self._section is not None:
            self._leave()

    def stop(self) -> None:
        """Take no more locks."""
        self._stopped = True
        self.reconnect()
        self.thaw()

    # --- acts ---

    def _act(self, action: Action, done: Done) -> None:
        number, self._next_number = self._next_number, self._next_number + 1
        self._open[number] = None
        self._send(number, action, done)

    def _send(self, number: int, action: Action, done: Done) -> None:
        cluster = self._cluster
        again = partial(self._send, number, action, done)
        if self.is_cut:
            self.later(AGAIN_MS_MAX, lambda: again() if number in self._open else None)
            return
        enrols = isinstance(action, Enrol)
        act = Act(0 if enrols else self._caller, number, next(iter(self._open)), action)
        heard = partial(self._on_outcome, number, done)
        tag = cluster.callers.call(self._rng.choice(cluster.peers).number, act, heard)

        def repeat() -> None:
            cluster.callers.give_up(tag)
            if number in self._open:
                again()

        self.later(self._rng.randrange(200, AGAIN_MS_MAX), repeat)

    def _on_outcome(self, number: int, done: Done, outcome: Outcome) -> None:
        """An answer comes. It may be lost on its way, or find nobody who can take it."""
        if number not in self._open or self.is_cut or self.is_frozen or self.is_dead:
            return
        if isinstance(outcome, Rejected) and outcome.code == "unavailable":
            return
        assert isinstance(outcome, Acted | Rejected)
        del self._open[number]
        done(outcome.answer if isinstance(outcome, Acted) else outcome)

    # --- leases ---

    def _enrol(self) -> None:
        def enrolled(answer: ActionAnswer | Rejected) -> None:
            assert isinstance(answer, Enrolled)
            self._caller = answer.caller
            self._next()

        self._act(Enrol(), enrolled)

    def _is_held(self) -> bool:
        return self._lease is not None and self.now_ms() < self._lease.until_ms

    def _with_lease(self, then: Callable[[], None]) -> None:
        if self._is_held():
            then()
            return
        ttl_ms = self._rng.choice(TTLS_MS)
        lease = SimLease(new_id(self._rng), ttl_ms, self.now_ms())

        def taken(_: ActionAnswer | Rejected) -> None:
            self._lease = lease
            self._renew_later(lease)
            then()

        self._act(TakeLease(lease.name, ttl_ms, f"caller-{self.number}"), taken)

    def _renew_later(self, lease: SimLease) -> None:
        self.later(lease.ttl_ms / 3, partial(self._renew, lease))

    def _renew(self, lease: SimLease) -> None:
        if self._lease is not lease or self.is_done:
            return
        sent_ms = self.now_ms()

        def kept(answer: ActionAnswer | Rejected) -> None:
            if self._lease is not lease:
                return
            assert isinstance(answer, LeasesKept)
            if answer.gone:
                self._lease = None
                self._watch()
            else:
                lease.renewed(sent_ms)
                self._renew_later(lease)

        self._act(KeepLeases((lease.name,)), kept)

    # --- locks ---

    def _next(self) -> None:
        if not self._stopped:
            self.later(self._rng.randrange(1, PAUSE_MS_MAX), lambda: self._with_lease(self._take))
        elif self._lease is not None:
            self._act(EndLease(self._lease.name), self._end)
        else:
            self.is_done = True

    def _end(self, _: ActionAnswer | Rejected) -> None:
        self._lease, self.is_done = None, True

    def _take(self) -> None:
        if self._lease is None:
            self._next()
            return
        self._turn += 1
        turn, rng = self._turn, self._rng
        name, capacity = rng.choice(LOCKS)
        wish = AcquireLock(
            name,
            new_id(rng),
            self._lease.name,
            f"caller-{self.number}",
            capacity,
            shared=name == "page" and rng.random() < 0.6,
            wait=rng.random() < 0.9,
            label=f"caller-{self.number}",
        )

        def answered(answer: ActionAnswer | Rejected) -> None:
            if isinstance(answer, LockHeld):
                self._enter(wish, answer.token)
            elif isinstance(answer, LockWaiting):
                self._cluster.happened["waited for a lock"] += 1
                self._poll(wish, turn)
                if rng.random() < 0.2:
                    self.later(rng.randrange(100, 2_000), partial(self._withdraw, wish, turn))
            else:
                self._next()

        self._act(wish, answered)

    def _withdraw(self, wish: AcquireLock, turn: int) -> None:
        if self._turn == turn and self._section is None:
            self._cluster.happened["stopped waiting for a lock"] += 1
            self._release(wish)

    def _poll(self, wish: AcquireLock, turn: int) -> None:
        """Ask a peer what has become of it, which may be behind."""
        if self._turn != turn or self._section is not None:
            return
        again = partial(self._poll, wish, turn)
        if not self._is_held():
            self._release(wish)
            return
        peer = self._rng.choice(self._cluster.peers)
        if self.is_cut or not peer.alive or peer.paused:
            self.later(POLL_MS_MAX, again)
            return
        claim = peer.scheduler.machine.lock_claims.get(wish.claim)
        if claim is not None and claim.token:
            self._enter(wish, claim.token)
        else:
            self.later(self._rng.randrange(1, POLL_MS_MAX), again)

    def _enter(self, wish: AcquireLock, token: int) -> None:
        if not self._is_held():  # the answer came too late
            self._release(wish)
            return
        self._section = Section(
            self.number, wish.name, token, capacity=wish.capacity, shared=wish.shared
        )
        happened = self._cluster.happened
        happened["locks held"] += 1
        happened["locks overtaken"] += self._cluster.referees.locks.enter(self._section)
        self._write(self._section)
        self._wish = wish
        self._leave_ms = self.now_ms() + self._rng.random() ** 3 * STAY_MS_MAX
        self._watch()

    def _watch(self) -> None:
        """Leave the section once all is done, or the lease may be over."""
        if self._section is None:
            return
        if not self._is_held():
            self._cluster.happened["locks lost"] += 1
            self._leave()
            self._release(self._wish)
        elif self.now_ms() >= self._leave_ms:
            self._write(self._section)
            self._leave()
            self._release(self._wish)
        else:
            assert self._lease is not None
            next_ms = min(self._lease.until_ms, self._leave_ms)
            turn = self._turn
            self.later(
                max(0.001, (next_ms - self.now_ms()) / self._rate),
                lambda: self._watch() if self._turn == turn else None,
            )

    def _write(self, section: Section) -> None:
        taken = self._cluster.referees.locks.write(section)
        self._cluster.happened["stale writes refused"] += not taken

    def _leave(self) -> None:
        assert self._section is not None
        self._cluster.referees.locks.leave(self._section)
        self._section = None

    def _release(self, wish: AcquireLock) -> None:
        self._turn += 1
        self._act(ReleaseLock(wish.name, wish.claim), lambda _: self._next())


class LockUsers:
    """Of one cluster, in some seeds. Drawn apart: all else is drawn as without."""

    def __init__(self, cluster: SimCluster, count: int | None = None) -> None:
        self._cluster = cluster
        self._faults = cluster.faults
        self._rng = rng = random.Random(f"locks {cluster.seed}")
        drawn = rng.choice((0, 0, 0, 0, 0, 0, 0, 4))
        self.all = [
            LockUser(cluster, number) for number in range(drawn if count is None else count)
        ]
        if self.all:
            self._hurt_later(rng.choice((300, 1_000)))

    def _hurt_later(self, every_ms: int) -> None:
        def again() -> None:
            if self._cluster.faults is self._faults:  # healed otherwise
                inside = [user for user in self.all if user.is_inside]  # where it matters most
                self._hurt(self._rng.choice(inside or self.all))
                self._hurt_later(every_ms)

        self._cluster.after(self._rng.expovariate(1 / every_ms), again)

    def _hurt(self, user: LockUser) -> None:
        draw = self._rng.random()
        if draw < 0.45:
            user.freeze(self._rng.random() ** 2 * FROZEN_MS_MAX)
        elif draw < 0.9:
            user.cut_off(self._rng.random() ** 2 * CUT_MS_MAX)
        else:
            user.die()
            self.all.remove(user)
            self.all.append(LockUser(self._cluster, user.number + 100))

    def end(self) -> None:
        for user in self.all:
            self._cluster.after(0, user.stop)

    @property
    def is_busy(self) -> bool:
        """Somebody has not had its turn yet, or a lock is held still."""
        if not self.all:
            return False
        held = any(
            peer.alive and peer.scheduler.machine.lock_claims for peer in self._cluster.peers
        )
        return held or not all(user.is_done for user in self.all)

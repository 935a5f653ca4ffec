"""Keys in a simulation: clients that read, write, swap, move sums and hold leases; histories of
what they saw, which must have an order that explains them.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from p2psched.model.commands import Rejected
from p2psched.model.ids import new_id
from p2psched.model.key_actions import (
    DeleteKey,
    Entry,
    KeyConflict,
    KeyPut,
    PutKey,
    Transact,
    ValueIs,
)
from p2psched.model.lease_actions import EndLease, KeepLeases, LeasesKept, TakeLease
from p2psched.testing.linear_models import Registers
from p2psched.testing.linearizable import History, Operation, check
from p2psched.testing.promises import demand
from p2psched.testing.sim_acts import SimActor

if TYPE_CHECKING:
    from p2psched.model.actions import ActionAnswer
    from p2psched.testing.sim import SimCluster

SHARE: Final = 0.3  # of the seeds have such clients
CLIENTS: Final = 3
ACTS_MAX: Final = 40  # of each client
READ_MS: Final = 2_000
LAST_ACTS: Final = 4  # in the peace
PAUSE_MS_MAX: Final = 600
NAMES: Final = ("k", "l")
SKEW: Final = 0.02  # the clock of a holder runs faster or slower by up to this


class Holder:
    """Holds a lease with a key on it, and counts as a client does."""

    def __init__(self, client: KeyClient) -> None:
        self._client = client
        self._cluster = client.cluster
        rng = client.rng
        self.lease = new_id(rng)
        self._ttl_ms = rng.choice((1_000, 2_500, 6_000))
        self._rate = 1 + rng.uniform(-SKEW, SKEW)
        self._until_ms = 0.0  # by its own clock
        self._renewals_left = rng.randrange(12)
        self._cluster.referees.acts.holders[self.lease] = self.counts_on_it
        self._begin(TakeLease(self.lease, self._ttl_ms))

    def _now_ms(self) -> float:
        return self._cluster.now_us / 1000 * self._rate

    def counts_on_it(self) -> bool:
        return self._now_ms() < self._until_ms

    def _begin(self, action: TakeLease | KeepLeases) -> None:
        sent_ms = self._now_ms()

        def heard(answer: ActionAnswer | Rejected) -> None:
            if isinstance(answer, Rejected) or (isinstance(answer, LeasesKept) and answer.gone):
                self._until_ms = 0.0
                return
            margin_ms = self._ttl_ms / 20 + 50
            self._until_ms = sent_ms + self._ttl_ms - margin_ms
            if isinstance(action, TakeLease):
                name = f"held/{self.lease[:4]}"
                self._client.act(PutKey(name, b"here", self.lease), lambda _: None)
            self._cluster.after(self._ttl_ms / 3, self._renew)

        self._client.act(action, heard)

    def _renew(self) -> None:
        if self._renewals_left and self._client.is_busy:
            self._renewals_left -= 1
            self._begin(KeepLeases((self.lease,)))
        elif self._client.rng.random() < 0.3:
            self._until_ms = 0.0
            self._client.act(EndLease(self.lease), lambda _: None)


class KeyClient(SimActor):
    """One thing after another, now and then a lease beside it."""

    def __init__(self, cluster: SimCluster, rng: random.Random, name: str, book: History) -> None:
        super().__init__(cluster, rng)
        self._name_here = name
        self._history = book
        self._left = rng.randrange(5, ACTS_MAX)
        self._written = 0
        self._seen: dict[str, tuple[bytes | None, int]] = dict.fromkeys(NAMES, (None, 0))
        self._leases = [new_id(rng)]  # one that nobody has
        self._pause()

    def come_to_an_end(self) -> None:
        self._left = min(self._left, LAST_ACTS)

    @property
    def is_busy(self) -> bool:
        """It has something to do, or an act without an answer."""
        return self._left > 0 or self.is_waiting

    def _pause(self) -> None:
        self.cluster.after(self.rng.randrange(1, PAUSE_MS_MAX), self._next)

    def _next(self) -> None:
        if not self._left:
            return
        self._left -= 1
        draw = self.rng.random()
        key = self.rng.choice(NAMES)
        if draw < 0.3:
            self._read(key)
        elif draw < 0.7:
            self._write(key, swap=draw > 0.45)
        elif draw < 0.9:
            self._transact()
        else:
            self._leases.append(Holder(self).lease)
            self._pause()

    def _value(self) -> bytes:
        self._written += 1
        return f"{self._name_here}{self._written}".encode()

    def _read(self, key: str) -> None:
        number = self.rng.randrange(len(self.cluster.peers))
        operation = self._history.call(self._name_here, ("read", key))
        waits = [True]

        def go_on() -> bool:
            if waits:
                waits.clear()
                self._pause()
                return True
            return False

        def done(index: int | None) -> None:
            if index is None:
                give_up()
            elif go_on():
                keys = self.cluster.peers[number].scheduler.machine.keys
                self._note(key, keys.get(key))
                self._history.answer(operation, self._seen[key][0])

        def give_up() -> None:
            if go_on():
                self._history.void(operation)

        self.cluster.read(number, done)
        self.cluster.after(READ_MS, give_up)  # its peer may have died

    def _note(self, key: str, entry: Entry | None) -> None:
        self._seen[key] = (entry.value, entry.version) if entry is not None else (None, 0)

    def _write(self, key: str, *, swap: bool) -> None:
        value = self._value()
        old, version = self._seen[key]
        asked = ("swap", key, old, value) if swap else ("write", key, value)
        operation = self._history.call(self._name_here, asked)

        def heard(answer: ActionAnswer | Rejected) -> None:
            self._judge(operation, key, value, answer)
            self._pause()

        self.act(PutKey(key, value, expected=version if swap else None), heard)

    def _judge(
        self, operation: Operation, key: str, value: bytes, answer: ActionAnswer | Rejected
    ) -> None:
        match answer:
            case KeyPut(version=version):
                self._seen[key] = (value, version)
                self._history.answer(operation, True)
            case KeyConflict(current=current):
                self._note(key, current)
                self._history.answer(operation, False)
            case _:
                raise AssertionError(f"a put was answered {answer}")

    def _transact(self) -> None:
        """Several keys at once, in some cases with one that can't be done."""
        rng, value = self.rng, self._value()
        lease = rng.choice((None, None, rng.choice(self._leases)))
        ops = (PutKey("one", value), DeleteKey("three"), PutKey("two", value, lease))
        otherwise = (PutKey("one", b"first"), PutKey("three", value))
        compare = (ValueIs("one", b"first"),) if rng.random() < 0.5 else ()
        self.act(Transact(compare, ops, otherwise), lambda _: self._pause())


class KeyWork:
    """All such clients of a seed; none in most."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._history = History()
        rng = random.Random(f"keys {cluster.seed}")
        count = CLIENTS if rng.random() < SHARE else 0
        self.clients = [
            KeyClient(cluster, random.Random(rng.getrandbits(64)), name, self._history)
            for name in "abc"[:count]
        ]

    def end(self) -> None:
        """Begin little more."""
        for client in self.clients:
            client.come_to_an_end()

    @property
    def is_busy(self) -> bool:
        return any(client.is_busy for client in self.clients)

    def check_end(self) -> None:
        counts = self._cluster.referees.acts.counts
        self._cluster.happened.update(counts)
        result = check(self._history.operations, Registers())
        demand(result.ok, "P7", result.explain() if not result.ok else "")
        self.check_state()

    def check_state(self) -> None:
        """All have the same keys as the referee's account."""
        if self.clients:
            keys = self._cluster.referees.acts.keys
            for peer in self._cluster.peers:
                same = peer.scheduler.machine.keys == keys
                demand(same, "P7", f"peer {peer.number} has other keys")

"""The network of a simulation: it loses, doubles, delays, reorders, and falls apart.

It decides how long a message takes; who carries it is the cluster. A cut link drops what is sent
into it; what was under way before the cut still arrives, as stale data does after a reconnect.
"""

from __future__ import annotations

import random
from collections import Counter

from p2psched.testing.faults import TAIL_US_MAX, Faults


class SimNetwork:
    """Links between peers 0..size-1."""

    def __init__(self, size: int, rng: random.Random, happened: Counter[str]) -> None:
        self._size = size
        self._rng = rng
        self._happened = happened
        self._cut: set[tuple[int, int]] = set()  # (sender, receiver)
        self._busy_until_us: dict[tuple[int, int], int] = {}
        self._arrives_us: dict[tuple[int, int], int] = {}  # the latest so far, where order is lost

    def delays_us(self, sender: int, to: int, now_us: int, faults: Faults) -> list[int]:
        """How long each copy of a message is under way; none if it is lost."""
        happened, rng = self._happened, self._rng
        if (sender, to) in self._cut:
            happened["cut off"] += 1
            return []
        if faults.drop and rng.random() < faults.drop:
            happened["dropped"] += 1
            return []
        delays = [self._delay_us(sender, to, now_us, faults)]
        if faults.duplicate and rng.random() < faults.duplicate:
            happened["duplicated"] += 1
            delays.append(self._delay_us(sender, to, now_us, faults))
        return delays

    def _delay_us(self, sender: int, to: int, now_us: int, faults: Faults) -> int:
        is_late = bool(faults.tail) and self._rng.random() < faults.tail
        self._happened["late"] += is_late
        delay = 50 + int(self._rng.random() * (TAIL_US_MAX if is_late else faults.delay_us))
        if faults.in_order:
            link = (sender, to)
            arrives = max(now_us + delay, self._busy_until_us.get(link, 0) + 1)
            self._busy_until_us[link] = arrives
            return arrives - now_us
        newest = self._arrives_us.get((sender, to), 0)
        self._happened["reordered"] += now_us + delay < newest
        self._arrives_us[sender, to] = max(newest, now_us + delay)
        return delay

    # --- partitions ---

    def cut(self, sender: int, to: int) -> None:
        """Lose what `sender` sends to `to` from now on; the other way still works."""
        self._cut.add((sender, to))

    def cut_between(self, left: list[int], right: list[int]) -> None:
        """Lose what one side sends to the other, both ways."""
        for a in left:
            for b in right:
                self.cut(a, b)
                self.cut(b, a)

    def cut_at_random(self, kinds: tuple[str, ...]) -> str:
        """Replace the partition by another. Returns its kind."""
        rng = self._rng
        self.heal()
        kind = rng.choice(kinds)
        order = list(range(self._size))
        rng.shuffle(order)
        if self._size < 2:
            return kind
        at = rng.randrange(1, self._size)
        match kind:
            case "split":
                self.cut_between(order[:at], order[at:])
            case "one-way":
                for a in order[:at]:
                    for b in order[at:]:
                        self.cut(a, b)
            case "bridge":  # the sides don't see each other, one peer sees both
                self.cut_between(order[:at], order[at + 1 :])
            case _:
                self.cut_between(order[:1], order[1:])
        return kind

    def answers(self, one: int, other: int, faults: Faults) -> bool:
        """True if a call from one peer to the other would be answered now."""
        if (one, other) in self._cut or (other, one) in self._cut:
            return False
        return not faults.drop or self._rng.random() >= faults.drop

    def heal(self) -> None:
        self._cut.clear()

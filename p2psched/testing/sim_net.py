"""The network of a simulation: it loses, doubles, delays, reorders, and falls apart.

It decides how long a message takes; who carries it is the cluster. A cut link loses what is sent
into it, or holds it back (`stale`), as the buffers of a connection do: it arrives after the cut,
perhaps at another process than it was meant for. What was under way before a cut still arrives.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from p2psched.testing.faults import TAIL_US_MAX, Faults
from p2psched.testing.sim_items import Arrived

HELD_MAX: Final = 200  # messages that wait on one link; the oldest give way

Link = tuple[int, int]  # sender, receiver
Carry = Callable[[int, int, Arrived], None]


class SimNetwork:
    """Links between peers 0..size-1. `carry` brings a message over a link that is not cut."""

    def __init__(self, size: int, rng: random.Random, happened: Counter[str], carry: Carry) -> None:
        self._size = size
        self._rng = rng
        self._happened = happened
        self._carry = carry
        self._cut: set[Link] = set()
        self._clogged: set[int] = set()  # peers whose links stand still
        self._held: dict[Link, deque[Arrived]] = {}  # what waits for the end of a cut or a clog
        self._busy_until_us: dict[Link, int] = {}
        self._arrives_us: dict[Link, int] = {}  # the latest so far, where order is lost
        self.stale = 0.0  # share of what is sent into a cut that waits for its end

    def send(self, sender: int, to: int, arrived: Arrived) -> None:
        """Carry a message, hold it back, or lose it."""
        link = (sender, to)
        if link in self._cut:
            self._happened["cut off"] += 1
            if self.stale and self._rng.random() < self.stale:
                self._hold(link, arrived)
        elif self._clogged and not self._clogged.isdisjoint(link):
            self._happened["clogged"] += 1
            self._hold(link, arrived)
        else:
            self._carry(sender, to, arrived)

    def _hold(self, link: Link, arrived: Arrived) -> None:
        self._held.setdefault(link, deque(maxlen=HELD_MAX)).append(arrived)

    def _release(self) -> None:
        """What waited arrives, on links that are whole again."""
        for link in sorted(self._held):
            if link not in self._cut and self._clogged.isdisjoint(link):
                for arrived in self._held.pop(link):
                    self._happened["stale"] += 1
                    self._carry(*link, arrived)

    def delays_us(self, sender: int, to: int, now_us: int, faults: Faults) -> list[int]:
        """How long each copy of a message is under way; none if it is lost."""
        happened, rng = self._happened, self._rng
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
        if is_late:
            self._happened["late"] += 1
        delay = 50 + int(self._rng.random() * (TAIL_US_MAX if is_late else faults.delay_us))
        if faults.in_order:
            link = (sender, to)
            arrives = max(now_us + delay, self._busy_until_us.get(link, 0) + 1)
            self._busy_until_us[link] = arrives
            return arrives - now_us
        if now_us + delay < self._arrives_us.get((sender, to), 0):
            self._happened["reordered"] += 1
        else:
            self._arrives_us[sender, to] = now_us + delay
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
        self._cut.clear()
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
        if not self._clogged.isdisjoint((one, other)):
            return False
        return not faults.drop or self._rng.random() >= faults.drop

    def clog(self, peer: int) -> None:
        """Let all links of a peer stand still; nothing is lost until `HELD_MAX` messages wait."""
        self._clogged.add(peer)

    def unclog(self, peer: int) -> None:
        self._clogged.discard(peer)
        self._release()

    def mend(self) -> None:
        """End all cuts."""
        self._cut.clear()
        self._release()

    def heal(self) -> None:
        """End all cuts and clogs."""
        self._clogged.clear()
        self.mend()

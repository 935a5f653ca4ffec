"""Whom to probe next, and how the probe stands: each peer once a round, in an order that is
shuffled anew, so that a dead one is found within two rounds whatever the luck (SWIM, 4.3)."""

from __future__ import annotations

import random
from collections.abc import Callable

from p2psched.model.ids import PeerId


class Circle:
    """The order of probes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._order: list[PeerId] = []  # the next one last
        self._in_order: set[PeerId] = set()

    def add(self, peer: PeerId) -> None:
        """Somewhere in this round: all that hear of it at once don't probe it at once."""
        if peer not in self._in_order:
            self._in_order.add(peer)
            self._order.insert(self._rng.randint(0, len(self._order)), peer)

    def next(
        self, others: Callable[[], list[PeerId]], *, fits: Callable[[PeerId], bool]
    ) -> PeerId | None:
        """`others` are asked for when a round is over."""
        for is_new_round in (False, True):
            if is_new_round:
                self._order = sorted(others())
                self._rng.shuffle(self._order)
                self._in_order = set(self._order)
            while self._order:
                peer = self._order.pop()
                self._in_order.discard(peer)
                if fits(peer):
                    return peer
        return None


class Probe:
    """One that is under way."""

    __slots__ = ("asked", "due_ms", "nacks", "others_ms", "peer", "sequence", "widened")

    def __init__(self, peer: PeerId, sequence: int, *, others_ms: int, due_ms: int) -> None:
        self.peer = peer
        self.sequence = sequence
        self.others_ms = others_ms  # when others are asked
        self.due_ms = due_ms  # when it has failed
        self.widened = False
        self.asked = 0  # others
        self.nacks = 0  # of those: they are there, and so is the way to them


class Relay:
    """A probe for somebody else."""

    __slots__ = ("asker", "due_ms", "sequence", "source", "target")

    def __init__(
        self, asker: PeerId, source: str, sequence: int, target: PeerId, due_ms: int
    ) -> None:
        self.asker = asker
        self.source = source
        self.sequence = sequence  # of the asker
        self.target = target
        self.due_ms = due_ms  # then the asker hears that we still wait

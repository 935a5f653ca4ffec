"""Ids of jobs that were forgotten, and stay taken for a while: a repeated submit is no new job.

Kept as 64 bits of a hash, in generations that leave as wholes: eight bytes an id, and about 90 in
the newest generation, which grows. Ids are random, so none is taken for another within the life of
a cluster.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from p2psched.model.ids import JobId
from p2psched.model.limits import FORGOTTEN_IDS_MAX, FORGOTTEN_MS

GENERATION_MS: Final = FORGOTTEN_MS // 24
GENERATION_IDS_MAX: Final = FORGOTTEN_IDS_MAX // 16
_ID_BYTES: Final = 8
_IDS: Final = "Q"  # of `array`: as many bytes
_SWAPS: Final = array(_IDS, (1,)).tobytes()[0] == 1  # this machine's order is not that of snapshots


class Generation:
    """Ids that were forgotten within one span of ledger time."""

    __slots__ = ("_new", "_sorted", "since_ms")

    def __init__(self, since_ms: int, packed: bytes = b"") -> None:
        self.since_ms = since_ms
        self._sorted = array(_IDS, packed)  # the most, in order
        if _SWAPS:
            self._sorted.byteswap()
        self._new: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def __contains__(self, number: int) -> bool:
        if number in self._new:
            return True
        at = bisect_left(self._sorted, number)
        return at < len(self._sorted) and self._sorted[at] == number

    def add(self, number: int) -> None:
        if number not in self:
            self._new.add(number)

    def settle(self) -> None:
        """It is looked at for long, or told: let it take little."""
        if self._new:
            # Two sequences in order: that is quicker than to sort them anew.
            merged: Iterable[int] = sorted([*self._sorted, *sorted(self._new)])
            self._sorted = array(_IDS, merged)
            self._new = set()

    def packed(self) -> bytes:
        """The ids in order, eight bytes each."""
        self.settle()
        told = array(_IDS, self._sorted)
        if _SWAPS:
            told.byteswap()
        return told.tobytes()


class Forgotten:
    """An id is known for at least FORGOTTEN_MS of ledger time after it was added, unless more than
    FORGOTTEN_IDS_MAX came after it. Cost O(generations), at most a few dozen."""

    __slots__ = ("generations",)

    def __init__(self) -> None:
        self.generations: list[Generation] = []  # oldest first

    def __len__(self) -> int:
        return sum(map(len, self.generations))

    def __contains__(self, job: JobId) -> bool:
        if not self.generations:
            return False
        number = _number(job)
        return any(number in generation for generation in self.generations)

    def add(self, job: JobId, now_ms: int) -> None:
        newest = self.generations[-1] if self.generations else None
        if (
            newest is None
            or now_ms - newest.since_ms >= GENERATION_MS
            or len(newest) >= GENERATION_IDS_MAX
        ):
            if newest is not None:
                newest.settle()
            newest = Generation(now_ms)
            self.generations.append(newest)
            self._drop_old(now_ms)
        newest.add(_number(job))

    def _drop_old(self, now_ms: int) -> None:
        """A generation is over when the youngest id in it is."""
        generations = self.generations
        while len(generations) > 1 and (
            now_ms - generations[1].since_ms >= FORGOTTEN_MS
            or len(self) - len(generations[0]) >= FORGOTTEN_IDS_MAX
        ):
            del generations[0]


def _number(job: JobId) -> int:
    return int.from_bytes(hashlib.blake2b(job.encode(), digest_size=_ID_BYTES).digest())

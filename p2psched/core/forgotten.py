"""Ids of jobs that were forgotten, and stay taken for a while: a repeated submit is no new job.

Kept as 64 bits of a hash, in generations that leave as wholes: about 90 bytes an id. Ids are
random, so none is taken for another within the life of a cluster.
"""

from __future__ import annotations

import hashlib
from typing import Final

from p2psched.model.ids import JobId
from p2psched.model.limits import FORGOTTEN_IDS_MAX, FORGOTTEN_MS

GENERATION_MS: Final = FORGOTTEN_MS // 24
GENERATION_IDS_MAX: Final = FORGOTTEN_IDS_MAX // 16
_ID_BYTES: Final = 8


class Generation:
    """Ids that were forgotten within one span of ledger time."""

    __slots__ = ("_packed", "ids", "since_ms")

    def __init__(self, since_ms: int, packed: bytes = b"") -> None:
        self.since_ms = since_ms
        self.ids = {
            int.from_bytes(packed[at : at + _ID_BYTES]) for at in range(0, len(packed), _ID_BYTES)
        }
        self._packed = packed

    def packed(self) -> bytes:
        """The ids in order, eight bytes each. Ids are only added, so that only the newest
        generation is ever packed twice."""
        if len(self._packed) != len(self.ids) * _ID_BYTES:
            self._packed = b"".join(number.to_bytes(_ID_BYTES) for number in sorted(self.ids))
        return self._packed


class Forgotten:
    """An id is known for at least FORGOTTEN_MS of ledger time after it was added, unless more than
    FORGOTTEN_IDS_MAX came after it. Cost O(generations), at most a few dozen."""

    __slots__ = ("generations",)

    def __init__(self) -> None:
        self.generations: list[Generation] = []  # oldest first

    def __len__(self) -> int:
        return sum(len(generation.ids) for generation in self.generations)

    def __contains__(self, job: JobId) -> bool:
        if not self.generations:
            return False
        number = _number(job)
        return any(number in generation.ids for generation in self.generations)

    def add(self, job: JobId, now_ms: int) -> None:
        newest = self.generations[-1] if self.generations else None
        if (
            newest is None
            or now_ms - newest.since_ms >= GENERATION_MS
            or len(newest.ids) >= GENERATION_IDS_MAX
        ):
            newest = Generation(now_ms)
            self.generations.append(newest)
            self._drop_old(now_ms)
        newest.ids.add(_number(job))

    def _drop_old(self, now_ms: int) -> None:
        """A generation is over when the youngest id in it is."""
        generations = self.generations
        while len(generations) > 1 and (
            now_ms - generations[1].since_ms >= FORGOTTEN_MS
            or len(self) - len(generations[0].ids) >= FORGOTTEN_IDS_MAX
        ):
            del generations[0]


def _number(job: JobId) -> int:
    return int.from_bytes(hashlib.blake2b(job.encode(), digest_size=_ID_BYTES).digest())

"""What a peer notes on its own disk of the work that it was granted, for the case that it starts
again without a majority to ask.

Only what it has for a while: short tasks come and go without a word. It is a note, not a promise:
what is missing in it is run elsewhere, or later.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from p2psched.core.owner import Owner
from p2psched.core.separation_effects import KeepOwned
from p2psched.model.commands import Grant
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.reconcile import OwnedPart
from p2psched.model.taskset import EMPTY, TaskSet

LOOK_MS: Final = 1_000  # between two looks; what is there at two of them is noted
PARTS_MAX: Final = 256  # that are looked at: what runs, and the front of the queue
RANGES_MAX: Final = 2_048  # of tasks in one note

Key = tuple[JobId, Grant, int]  # with the attempt


def may_begin_again(spec: JobSpec) -> bool:
    """Without a word of the ledger. Whose lock it is by now nobody knows here, nor whether what
    must not start twice has started."""
    return spec.hold is None and not spec.start


class OwnedBook:
    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._looked_ms: int | None = None
        self._seen: dict[Key, TaskSet] = {}
        self._noted: tuple[tuple[OwnedPart, ...], int, int] = ((), 0, 0)

    def look(self, now_ms: int, *, incarnation: int, since: int) -> list[KeepOwned]:
        """Time went on."""
        if self._looked_ms is not None and now_ms - self._looked_ms < LOOK_MS:
            return []
        self._looked_ms = now_ms
        seen, self._seen = self._seen, self._now()
        parts: list[OwnedPart] = []
        ranges = 0
        for (job, grant, attempt), tasks in self._seen.items():
            lasting = tasks & seen.get((job, grant, attempt), EMPTY)
            ranges += len(lasting.ranges)
            if lasting.ranges and ranges <= RANGES_MAX:
                parts.append(OwnedPart(job, grant, attempt, lasting))
        specs = self._owner.specs(part.job for part in parts)
        specs = {job: spec for job, spec in specs.items() if may_begin_again(spec)}
        owned = tuple(part for part in parts if part.job in specs)
        note = (owned, incarnation, since)
        if note == self._noted or not (owned or self._noted[0]):
            return []
        self._noted = note
        return [KeepOwned(owned, specs, incarnation, since)]

    def _now(self) -> dict[Key, TaskSet]:
        found: dict[Key, TaskSet] = {}
        for part in islice(self._owner.owned(), PARTS_MAX):
            key = (part.job, part.grant, part.attempt)
            found[key] = found.get(key, EMPTY) | part.tasks
        return found

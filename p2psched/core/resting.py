"""Whether a round would do anything: a part of the scheduler's core, for who drives it in turns in
which nothing may have come for it.

A round is made of what has come since the last one. Beyond that only time can give it something to
do, and where it can stands here.
"""

from __future__ import annotations

from p2psched.core.deciding import Deciding
from p2psched.core.owner import Owner
from p2psched.core.stealing import Stealing


class Resting:
    def __init__(self, stealing: Stealing, owner: Owner, deciding: Deciding) -> None:
        self._stealing = stealing
        self._owner = owner
        self._deciding = deciding
        self._rests = False
        self.takes = True  # tasks of others would be granted, as of the last round

    def end(self) -> None:
        """Something has come."""
        self._rests, self.takes = False, True

    def begin(self) -> None:
        """At the end of a round."""
        self._rests = not (self._owner.has_queue or self._owner.starting.is_under_way)

    def wants_round(self, now_ms: int) -> bool:
        """False if nothing has come since the last round, which left nothing to do, no round of
        placements is overdue, and it isn't time to ask for work."""
        if not self._rests or self._deciding.is_overdue(now_ms):
            return True
        return self._stealing.is_idle(now_ms) and self.takes

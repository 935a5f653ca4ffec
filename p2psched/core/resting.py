"""Whether a round would do anything: a part of the scheduler's core, for who drives it in turns in
which nothing may have come for it.

A round is made of what has come since the last one. Beyond that only time can give it something to
do, and where it can stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sized

from p2psched.core.deciding import Deciding
from p2psched.core.retention import Retention
from p2psched.core.scheduler_events import Asked, GaveUp, Round, SchedulerEvent
from p2psched.core.stealing import Stealing


class Resting:
    def __init__(
        self,
        stealing: Stealing,
        deciding: Deciding,
        retention: Retention,
        ledger_ms: Callable[[int], int],
        append: Sized,
    ) -> None:
        """`ledger_ms`: ledger time at a time of ours. `append`: what is to leave for the ledger."""
        self._stealing = stealing
        self._deciding = deciding
        self._retention = retention
        self._ledger_ms = ledger_ms
        self._append = append
        self._rests = False
        self.takes = True  # tasks of others would be granted, as of the last round

    def on_event(self, event: SchedulerEvent, *, leaves: bool) -> None:
        """Something has come. That a caller waits no more gives a round nothing to do, unless this
        peer `leaves`, or places what it could not before; and what one proposes only has to leave.
        """
        if isinstance(event, Round):
            return
        if isinstance(event, (Asked, GaveUp)) and not (leaves or self._deciding.has_unplaced):
            self.takes |= isinstance(event, Asked)
            return
        self.end()

    def end(self) -> None:
        """There is something to do."""
        self._rests, self.takes = False, True

    def only_asks(self, now_ms: int) -> bool:
        """A round would find nothing to do but to let leave what callers propose, and to ask others
        for work. Tasks that could not be placed are looked at in each."""
        if not self._rests:
            return False
        coordinates = self._retention.active
        return not (coordinates and (self._deciding.has_unplaced or self._is_due(now_ms)))

    def _is_due(self, now_ms: int) -> bool:
        """Of who coordinates."""
        return self._deciding.is_overdue(now_ms) or self.forgets(now_ms)

    def begin(self) -> None:
        """At the end of a round."""
        owner = self._stealing.owner
        waits = owner.has_queue or owner.starting.is_under_way or owner.leasing.is_under_way
        self._rests = not (waits or self._deciding.looks_for_late)

    def forgets(self, now_ms: int) -> bool:
        """This peer coordinates, and it may be time to forget a job."""
        return self._retention.active and self._retention.is_due(self._ledger_ms(now_ms))

    def wants_round(self, now_ms: int) -> bool:
        """False if nothing has come since the last round, which left nothing to do, no round of
        placements is overdue, and it isn't time to forget a job, nor to ask for work. Each looks
        for what backups and leases are due for."""
        if not self._rests or self._append or (self._retention.active and self._is_due(now_ms)):
            return True
        return self._stealing.is_idle(now_ms) and self.takes

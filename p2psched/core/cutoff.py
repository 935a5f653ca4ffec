"""How long a peer hears of no majority, and when that is too long for its tasks.

It goes on with what it was granted, each job for as long as that says (`max_disconnect`), then ends
it and starts nothing more of it, until a majority is heard again and has said what of this is still
this peer's.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.owner import Owner, OwnerEffect
from p2psched.model.ids import JobId

NOTICE_MS: Final = 2_000  # no leader for so long is no election any more
SETTLE_MS: Final = 1_000  # of hearing one, until what was ended here may be begun again


class CutOff:
    """Of one process."""

    def __init__(self, owner: Owner, max_ms: int) -> None:
        self._owner = owner
        self._max_ms = max_ms
        self._led_ms: int | None = None  # when a majority was heard last
        self.back_ms: int | None = None  # since when it is heard without a gap
        self.away_ms = 0

    @property
    def is_cut(self) -> bool:
        return self.away_ms >= NOTICE_MS

    @property
    def overdue(self) -> tuple[JobId, ...]:
        """Jobs that were ended here because it lasts too long."""
        return self._owner.held_back

    def on_begin(self, now_ms: int, away_ms: int = 0) -> None:
        """The process is up, and the one before it was cut off for so long by now."""
        self._led_ms, self.away_ms = now_ms - away_ms, away_ms

    def on_clock(self, now_ms: int, *, led: bool) -> None:
        """`led`: a majority is heard just now."""
        if led:
            self.back_ms = now_ms if self.back_ms is None else self.back_ms
            self._led_ms, self.away_ms = now_ms, 0
            return
        self._led_ms = now_ms if self._led_ms is None else self._led_ms
        self.back_ms, self.away_ms = None, now_ms - self._led_ms

    def end_overdue(self) -> list[OwnerEffect]:
        """Time went on without a majority."""
        effects: list[OwnerEffect] = []
        held = set(self.overdue)
        for job, limit_ms in self._owner.at_work().items():
            most_ms = self._max_ms if limit_ms is None else limit_ms
            if self.away_ms >= most_ms and job not in held:
                effects += self._owner.hold(job)
        return effects

    def on_settled(self, now_ms: int) -> None:
        """Time went on, and the majority knows this peer."""
        assert self.back_ms is not None, "who is not heard is not known"
        if self.overdue and now_ms - self.back_ms >= SETTLE_MS:
            self._owner.go_on()

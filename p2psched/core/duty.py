"""How much of the time a peer's slots may be in use, all of them together: `start --duty`.

Time is earned while it passes and spent by slots that are in use; nothing begins while more was
spent than earned. What runs is never interrupted, so after a long task the slots stand still for
long. Decides nothing else: others hear of it in load reports, and place by it.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = 1_000  # per mille: no limit
SAVED_MS_MAX: Final = 500  # a slot: what stood still for long may begin at once, for so long
STEP_MS_MAX: Final = 1_000  # of time between two looks: more is a process that was stopped


class Duty:
    """Mutable. `share` is per mille of the time."""

    def __init__(self, slots: int, share: int = WHOLE) -> None:
        assert 0 < share <= WHOLE
        self.share = share
        self._slots = slots
        self._saved = SAVED_MS_MAX * slots * share  # millionths of a slot's second
        self._looked_ms: int | None = None
        self._busy = 0

    def rests(self, now_ms: int, busy: int) -> bool:
        """True if nothing may begin. `busy`: slots in use, as of now; called whenever that
        changes, and in between."""
        if self.share == WHOLE:
            return False
        if self._looked_ms is not None:
            passed_ms = min(max(0, now_ms - self._looked_ms), STEP_MS_MAX)
            earned = passed_ms * (self._slots * self.share - self._busy * WHOLE)
            self._saved = min(self._saved + earned, SAVED_MS_MAX * self._slots * self.share)
        self._looked_ms = now_ms
        self._busy = min(busy, self._slots)
        return self._saved <= 0

    def note(self, busy: int) -> None:
        """Something has begun since."""
        self._busy = min(busy, self._slots)

    @property
    def is_spent(self) -> bool:
        """As of the last look."""
        return self.share < WHOLE and self._saved <= 0

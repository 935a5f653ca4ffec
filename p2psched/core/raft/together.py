"""When proposals leave as an entry: at once while none is in flight, else with what comes after.

An entry costs as much as ten commands in it, on each peer. So while one waits for its commit, a few
proposals wait too; not where a commit takes long because the others are far away, and not once
there are enough of them. Who is alone never waits.
"""

from __future__ import annotations

from typing import Final

ENTRIES_IN_FLIGHT_MAX: Final = 4  # appended and not committed; beyond it proposals pile up
TOGETHER_MIN: Final = 64  # proposals that are worth an entry whatever is in flight
MANY_MIN: Final = 8  # commands in an entry that tell of many callers, ...
MANY_MS: Final = 50  # ... for so long
TOGETHER_MS: Final = 10  # fewer wait so long at the most


class Together:
    """Of the leader: how long proposals have waited."""

    def __init__(self) -> None:
        self._since_ms: int | None = None
        self._is_over = False

    def may_leave(self, count: int, in_flight: int) -> bool:
        """`count`: proposals that wait; `in_flight`: entries."""
        if in_flight >= ENTRIES_IN_FLIGHT_MAX:
            return False
        return not in_flight or self._is_over or count >= TOGETHER_MIN

    def look(self, now_ms: int) -> None:
        """Time went on."""
        if self._since_ms is not None and now_ms - self._since_ms >= TOGETHER_MS:
            self._is_over = True

    def note(self, now_ms: int, *, waits: bool) -> None:
        """At the end of a round: whether some are left."""
        if not waits:
            self._since_ms, self._is_over = None, False
        elif self._since_ms is None:
            self._since_ms = now_ms

    @property
    def due_ms(self) -> int | None:
        """When to `look`."""
        return None if self._since_ms is None or self._is_over else self._since_ms + TOGETHER_MS

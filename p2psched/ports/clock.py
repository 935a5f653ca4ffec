"""Port `Clock`. Wall clocks decide nothing: `now_ms` is the only time that protocols see."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds of boot time (it also counts while the machine sleeps)."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds, for people to read."""
        ...

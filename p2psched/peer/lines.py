"""The places of callers in the line to the ledger: see `core.admission`."""

from __future__ import annotations

from typing import Final

from p2psched.core.admission import Busy, Door
from p2psched.model import errors
from p2psched.ports.clock import Clock


def busy(refusal: Busy | None) -> errors.Busy | None:
    """As a caller hears it."""
    return None if refusal is None else busy_error(refusal)


def busy_error(refusal: Busy) -> errors.Busy:
    message = f"busy: {refusal.why}; ask again in {refusal.retry_ms} ms"
    return errors.Busy(message, retry_after_s=refusal.retry_ms / 1000)


class Line:
    """Hands out places, and says when they were taken."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self.door: Final = door
        self.clock: Final = clock

    def take(self, size: int) -> Place:
        return Place(self, size)


class Place:
    """Left once: `served` with an outcome, else by `leave`."""

    __slots__ = ("_is_left", "_line", "_since_ms", "_size")

    def __init__(self, line: Line, size: int) -> None:
        self._line = line
        self._size = size
        self._since_ms = line.clock.now_ms()
        self._is_left = False
        line.door.enter(size)

    def served(self) -> None:
        if not self._is_left:
            self._is_left = True
            now_ms = self._line.clock.now_ms()
            self._line.door.served(self._size, since_ms=self._since_ms, now_ms=now_ms)

    def leave(self) -> None:
        """After `served`, nothing."""
        if not self._is_left:
            self._is_left = True
            self._line.door.leave(self._size)

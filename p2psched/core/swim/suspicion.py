"""How long a suspect has to refute: long as long as one peer alone suspects it, shorter with each
other one that does (Lifeguard, LHA-Suspicion)."""

from __future__ import annotations

import math


class Suspicion:
    """Of one incarnation of one peer."""

    def __init__(
        self, accuser: bytes, now_ms: int, *, shortest_ms: int, longest_ms: int, wanted: int
    ) -> None:
        """`wanted`: further accusers that make it as short as it gets."""
        self._start_ms = now_ms
        self._shortest_ms = shortest_ms
        self._longest_ms = longest_ms if wanted > 0 else shortest_ms
        self._wanted = wanted
        self._accusers = {accuser}

    def confirm(self, accuser: bytes) -> bool:
        """True if that is news, and worth telling others."""
        if accuser in self._accusers or len(self._accusers) > self._wanted:
            return False
        self._accusers.add(accuser)
        return True

    def delay(self, pause_ms: int) -> None:
        """This peer itself was not there: what it has not heard says nothing."""
        self._start_ms += pause_ms

    @property
    def due_ms(self) -> int:
        if not self._wanted:
            return self._start_ms + self._shortest_ms
        share = math.log(len(self._accusers)) / math.log(self._wanted + 1)
        span = self._longest_ms - share * (self._longest_ms - self._shortest_ms)
        return self._start_ms + max(self._shortest_ms, int(span))

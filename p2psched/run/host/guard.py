"""Keeps one program within the limits of its job: starts it bound, looks at it, and says whether a
limit was what ended it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Protocol

from . import bounds, frames, watch

Verdict = tuple[int, str]  # a cause and a text; no text: no limit ended it
_NONE: Verdict = (frames.SIGNAL, "")


class Startable(Protocol):
    """What a program is started from."""

    argv: list[str]
    environment: dict[bytes, bytes]
    bounds: bounds.Bounds | None

    def program(self) -> str: ...


class Guard:
    def __init__(self, limits: bounds.Bounds, strangers: Collection[int]) -> None:
        """`strangers`: processes of earlier programs, which are not this one's."""
        self._bounds = limits
        self._watch = watch.of(limits, os.getpid(), alone=True, spared=strangers)
        self.due_ns: int | None = None  # when to look
        self._verdict = _NONE

    def launch(self, order: Startable, *, stdout: int, stderr: int) -> int:
        """Its number. Raises what `program` raises, OSError."""
        if self._bounds.sandbox:
            raise ValueError(f"this peer can't make a sandbox with {self._bounds.sandbox}")
        pid = bounds.launch(
            order.program(),
            order.argv,
            order.environment,
            limits=self._bounds,
            stdout=stdout,
            stderr=stderr,
            groups=[],
        )
        if self._watch is not None:
            self.due_ns = time.monotonic_ns() + watch.LOOK_NS
        return pid

    def look(self, now_ns: int) -> bool:
        """True if it has too much, and must be ended."""
        if self._watch is None or self.due_ns is None or now_ns < self.due_ns:
            return False
        self._verdict = self._watch.look()
        self.due_ns = None if self._verdict[1] else now_ns + watch.LOOK_NS
        return self.due_ns is None

    def verdict(self, code: int) -> Verdict:
        """Once it has ended so."""
        if self._verdict[1] or code >= 0:
            return self._verdict
        return frames.SIGNAL, self._bounds.story(-code)

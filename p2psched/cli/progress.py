"""How far much is: one line on stderr, for people who wait at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from p2psched.cli.output import size

PERIOD_S: Final = 0.1
SHOWN_AFTER_S: Final = 0.5  # what is quick is nobody's business


class Progress:
    """Called with what has come or gone: bytes, or what `show` puts into words. Draws nothing if
    stderr is no terminal."""

    def __init__(self, verb: str, total: int, show: Callable[[int], str] = size) -> None:
        self._show = show
        self._verb = verb
        self._total = total
        self._done = 0
        self._due_s = time.monotonic() + SHOWN_AFTER_S
        self._drawn = False

    def __call__(self, count: int) -> None:
        self._done += count
        now_s = time.monotonic()
        if not sys.stderr.isatty() or now_s < self._due_s:
            return
        self._due_s = now_s + PERIOD_S
        done = min(self._done, self._total)
        share = f"{100 * done // max(1, self._total)} %"
        text = f"{self._show(done)} of {self._show(self._total)}, {share}"
        sys.stderr.write(f"\r{self._verb} {text}\x1b[K")
        sys.stderr.flush()
        self._drawn = True

    def hide(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False

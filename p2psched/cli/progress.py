"""How far many bytes are: one line on stderr, for people who wait at a terminal."""

from __future__ import annotations

import sys
import time
from typing import Final

from p2psched.cli.output import size

PERIOD_S: Final = 0.1
SHOWN_AFTER_S: Final = 0.5  # what is quick is nobody's business


class Progress:
    """Called with bytes that have come or gone. Draws nothing if stderr is no terminal."""

    def __init__(self, verb: str, total: int) -> None:
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
        text = f"{size(done)} of {size(self._total)}, {share}"
        sys.stderr.write(f"\r{self._verb} {text}\x1b[K")
        sys.stderr.flush()
        self._drawn = True

    def hide(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False

"""A rival loses a worker, or its centre, in the midst of work; see `bench/naps.py`.

Runs under the rivals' interpreter, with a rival that nobody uses afterwards.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import psutil

from bench import naps

POLL_S: Final = 0.02


class Mortal(Protocol):
    """A rival of which parts can be killed."""

    def begin(self, function: Callable[[int, str], int], count: int, path: str) -> None:
        """Submit `function(number, path)` for 0, 1, ... `count` - 1, and return at once."""

    def done(self) -> int:
        """How many results are there."""

    def worker_pids(self) -> Sequence[int]:
        """Of one of the two workers; their children belong to it."""

    def centre_pids(self) -> Sequence[int]:
        """Of what all workers depend on."""


def lose_worker(rival: Mortal) -> dict[str, float]:
    return _lose(rival, rival.worker_pids())


def lose_centre(rival: Mortal) -> dict[str, float]:
    return _lose(rival, rival.centre_pids())


def _lose(rival: Mortal, victims: Sequence[int]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="p2psched-bench-naps-") as folder:
        side = Path(folder) / "side"
        began_s = time.monotonic()
        rival.begin(naps.nap, naps.TASKS, str(side))
        killed_s = took_s = None
        results = 0
        while time.monotonic() < naps.last_s(side, began_s) + naps.STILL_S:
            if killed_s is None and time.monotonic() >= began_s + naps.KILL_AT_S:
                killed_s = time.monotonic()
                _kill_all(victims)
            results = max(results, rival.done())
            if results == naps.TASKS:
                took_s = time.monotonic() - began_s
                break
            time.sleep(POLL_S)
        assert killed_s is not None, f"all had ended before {naps.KILL_AT_S} s"
        return naps.told(side, killed_s=killed_s, results=results, took_s=took_s)


def _kill_all(pids: Sequence[int]) -> None:
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            os.kill(process.pid, signal.SIGKILL)

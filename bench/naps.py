"""Work in the midst of which somebody dies: forty tasks of half a second on two workers, and what
the tasks themselves have written into a side file. Standard library only: rivals load it too.

A worker that is left alone has 17.0 s to work, from the first task on, if no task ran again but
the one that was lost.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TASKS: Final = 40
NAP_S: Final = 0.5
KILL_AT_S: Final = 3.2  # in the middle of a task
STILL_S: Final = 20.0  # without a task that begins or ends: then nothing more is expected


def nap(number: int, path: str) -> int:
    """Says that it begins and that it ends, each with a time that all processes here share."""
    side = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(side, f"+ {number} {time.monotonic()}\n".encode())
        time.sleep(NAP_S)
        os.write(side, f"- {number} {time.monotonic()}\n".encode())
    finally:
        os.close(side)
    return number


@dataclass(frozen=True, slots=True)
class Line:
    begins: bool
    number: int
    at_s: float


def lines(path: Path) -> list[Line]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    found = []
    for sign, number, at_s in map(str.split, text.splitlines()):
        found.append(Line(sign == "+", int(number), float(at_s)))
    return found


def last_s(path: Path, otherwise_s: float) -> float:
    """When a task began or ended last."""
    return max((line.at_s for line in lines(path)), default=otherwise_s)


def told(path: Path, *, killed_s: float, results: int, took_s: float | None) -> dict[str, float]:
    """Figures of one run. `took_s` is None if not all results have come.

    `ended_again`: tasks that had ended before the kill, and were begun once more. `twice`: all that
    were begun more than once, so the one that was lost, too. `elsewhere_s`: from the kill until
    the last of those began again."""
    found = lines(path)
    ended = {line.number for line in found if not line.begins and line.at_s < killed_s}
    starts = Counter(line.number for line in found if line.begins)
    again = [line for line in found if line.begins and line.at_s > killed_s]
    twice = {number for number, count in starts.items() if count > 1}
    figures = {
        "results": float(results),
        "ended_again": float(len(ended & {line.number for line in again})),
        "twice": float(len(twice)),
    }
    back_s = [line.at_s - killed_s for line in again if line.number in twice - ended]
    if back_s:
        figures["elsewhere_s"] = max(back_s)
    if took_s is not None:
        figures["wall_s"] = took_s
    return figures

"""Whoever looks at a task that no control group bounds: memory and processes of its whole tree.

Looks are 50 ms apart, so a task may have more for that long. Memory is what its processes have in
RAM, each page once: sums that count shared pages many times only decide whether it is worth
counting exactly. Linux only; elsewhere nothing is found, and `status` says so.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

from . import frames, tree
from .bounds import Bounds
from .groups import Group
from .sandbox import PROCESSES

LOOK_NS: Final = 50_000_000
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def of(
    limits: Bounds,
    root: int,
    *,
    group: Group | None = None,
    alone: bool = False,
    spared: Collection[int] = (),
) -> Watch | None:
    """None if there is nothing to look for, because a control group takes care of it."""
    memory = None if group is not None and group.bounds_memory else limits.memory
    processes = None if group is not None and group.bounds_processes else limits.processes
    if memory is None and processes is None:
        return None
    others = PROCESSES if limits.sandbox else 0
    return Watch(memory, processes, root, others=others, alone=alone, spared=spared)


class Watch:
    """Of one task: all that descends from `root`, with it or without, but what is spared."""

    def __init__(
        self,
        memory: int | None,
        processes: int | None,
        root: int,
        *,
        others: int,
        alone: bool,
        spared: Collection[int],
    ) -> None:
        """`others`: processes among them that are not the task's; `alone`: the root is not part of
        the task but runs it."""
        self._others = others
        self._memory = memory
        self._processes = processes
        self._below = tree.below if tree.tells_children() else tree.descendants
        self._root = root
        self._counts_root = not alone
        self._spared = spared

    def look(self) -> tuple[int, str]:
        """What it has too much of: a cause and a text for people; no text: nothing."""
        found = [pid for pid in self._below(self._root) if pid not in self._spared]
        if self._counts_root:
            found.append(self._root)
        most = self._processes
        count = len(found) - self._others
        if most is not None and count > most:
            return frames.SIGNAL, f"had {count} processes, and its limit is {most}"
        if self._memory is not None and _at_most(found) > self._memory:
            used = sum(map(_proportional, found))
            if used > self._memory:
                text = f"took {used:,} bytes of memory, and its limit is {self._memory:,}"
                return frames.OOM, text
        return frames.SIGNAL, ""


def _at_most(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
                total += int(file.read().split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it is over
    return total * _PAGE


def _proportional(pid: int) -> int:
    """Its share of what it has in RAM: of a page that n have, an n-th."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0

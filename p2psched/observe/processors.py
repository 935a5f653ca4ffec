"""Who uses the processors that this peer may run on: this peer with its tasks, or others.

The peer's own part is the time of all processes below it, and of those that ended there: each
parent has waited for its children and keeps their time. A process that leaves the tree (a daemon
made by a task) is somebody else's from then on.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from typing import Final

from p2psched.observe.readings import Roots, names_in, read_text

PROCESSES_MAX: Final = 512  # of the tree that are looked at; what more use counts as others'
_LINE: Final = re.compile(r"^cpu(\d+) (.+)$", re.MULTILINE)
_IDLE, _IOWAIT, _STEAL = 3, 4, 7  # the fields behind these are parts of others
_UTIME, _CSTIME = 11, 14  # behind the name: utime, stime, cutime, cstime


class Processors:
    """`look`, then read the shares of the time between the last two looks."""

    def __init__(
        self,
        roots: Roots,
        pid: int,
        *,
        allowed: Callable[[], Collection[int]] | None = None,
        quota: float | None = None,
    ) -> None:
        """`allowed`: which it may use, if not what the process may. `quota`: how many at most."""
        self._proc = str(roots.proc)
        self._pid = pid
        self._allowed = allowed or (lambda: os.sched_getaffinity(pid))
        self._quota = quota
        self._set: frozenset[int] = frozenset()
        self._before: tuple[int, int, int] | None = None  # ticks: of all, not idle, our own
        self._digest: tuple[frozenset[int], int] | None = None
        self.busy = 0  # per mille of these processors
        self.foreign = 0  # likewise, used by others

    def look(self) -> None:
        total, busy, cpus = self._ticks()
        found = (total, busy, sum(map(self._own_ticks, self._tree())))
        before, self._before = self._before, found
        if cpus != self._set:  # somebody moved us: the figures don't go on from the old ones
            self._set, before = cpus, None
        if before is None or total <= before[0]:
            return
        passed, used, own = (max(0, new - old) for new, old in zip(found, before, strict=True))
        self.busy = min(1000, used * 1000 // passed)
        self.foreign = max(0, self.busy - own * 1000 // passed)

    @property
    def cores(self) -> int:
        """That it may use at once."""
        count = len(self._set)
        return count if self._quota is None else max(1, min(count, -int(-self._quota // 1)))

    @property
    def machine(self) -> int:
        """The same for all who share exactly these processors: 32 bits, not 0."""
        if self._digest is None or self._digest[0] != self._set:
            boot = read_text(f"{self._proc}/sys/kernel/random/boot_id").strip()
            text = f"{boot} {sorted(self._set)}".encode()
            number = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
            self._digest = self._set, number or 1
        return self._digest[1]

    def _ticks(self) -> tuple[int, int, frozenset[int]]:
        """In all and not idle, of the processors that we may run on; and which these are."""
        allowed = self._allowed()
        total = busy = 0
        cpus = []
        for number, rest in _LINE.findall(read_text(f"{self._proc}/stat")):
            if int(number) not in allowed:
                continue
            cpus.append(int(number))
            ticks = [int(word) for word in rest.split()[: _STEAL + 1]]
            total += sum(ticks)
            busy += sum(ticks) - sum(ticks[_IDLE : _IOWAIT + 1])
        return total, busy, frozenset(cpus)

    def _tree(self) -> Iterator[int]:
        waiting = [self._pid]
        for _ in range(PROCESSES_MAX):
            if not waiting:
                return
            pid = waiting.pop()
            yield pid
            tasks = f"{self._proc}/{pid}/task"
            for thread in names_in(tasks):
                waiting += map(int, read_text(f"{tasks}/{thread}/children").split())

    def _own_ticks(self, pid: int) -> int:
        """Of a process and of the children that it has waited for."""
        _, _, behind = read_text(f"{self._proc}/{pid}/stat").rpartition(")")
        words = behind.split()
        return sum(map(int, words[_UTIME : _CSTIME + 1])) if len(words) > _CSTIME else 0

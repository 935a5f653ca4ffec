"""Memory that this peer's tasks may have: of the machine, or of what a cgroup leaves of it."""

from __future__ import annotations

import re
from typing import Final

from p2psched.observe.cgroups import memory_limit
from p2psched.observe.readings import Roots, read_text

_LINE: Final = re.compile(r"^(MemTotal|MemAvailable):\s+(\d+) kB", re.MULTILINE)
_KIB_PER_MIB: Final = 1024
_MIB: Final = 1024 * 1024


class Memory:
    def __init__(self, roots: Roots) -> None:
        self._path = roots.proc / "meminfo"
        self._limit = memory_limit(roots)
        self.total = 0  # MiB
        self.free = 0  # MiB that can be had without swapping

    def look(self) -> None:
        found = {name: int(kib) for name, kib in _LINE.findall(read_text(self._path))}
        self.total = found.get("MemTotal", 0) // _KIB_PER_MIB
        self.free = found.get("MemAvailable", 0) // _KIB_PER_MIB
        if self._limit is not None:
            self.total = min(self.total, self._limit.limit_bytes // _MIB)
            self.free = min(self.free, self._limit.free_bytes() // _MIB)

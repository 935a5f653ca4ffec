"""What the cgroups of this process limit: both versions, and every level above it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

import msgspec

from p2psched.observe.readings import Roots, read_int, read_text

_NO_LIMIT: Final = 1 << 60  # version 1 says a number of that size
LEVELS_MAX: Final = 64


class MemoryLimit(msgspec.Struct, frozen=True):
    """Of the level of a cgroup that leaves least."""

    limit_bytes: int
    usage_path: str
    stat_path: str

    def free_bytes(self) -> int:
        """What may still be taken; pages of files that nobody needs count as free."""
        used = read_int(self.usage_path) or 0
        for line in read_text(self.stat_path).splitlines():
            name, _, number = line.partition(" ")
            if name in {"inactive_file", "total_inactive_file"} and number.isdecimal():
                used -= int(number)
        return max(0, self.limit_bytes - max(0, used))


def memory_limit(roots: Roots) -> MemoryLimit | None:
    found = []
    for folder, is_second in _folders(roots, "memory"):
        limit = read_int(f"{folder}/{'memory.max' if is_second else 'memory.limit_in_bytes'}")
        if limit is not None and 0 < limit < _NO_LIMIT:
            usage = "memory.current" if is_second else "memory.usage_in_bytes"
            found.append(MemoryLimit(limit, f"{folder}/{usage}", f"{folder}/memory.stat"))
    return min(found, key=lambda one: one.limit_bytes, default=None)


def processor_quota(roots: Roots) -> float | None:
    """Processors at most, in shares too; None: no limit."""
    found = []
    for folder, is_second in _folders(roots, "cpu"):
        if is_second:
            words = read_text(f"{folder}/cpu.max").split()
        else:
            words = [
                read_text(f"{folder}/cpu.cfs_quota_us").strip(),
                read_text(f"{folder}/cpu.cfs_period_us").strip(),
            ]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def _folders(roots: Roots, controller: str) -> Iterator[tuple[str, bool]]:
    """Of our cgroup and those above; and whether they are of version 2."""
    for line in read_text(roots.proc / "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        is_second = number == "0" and not names
        if not is_second and controller not in names.split(","):
            continue
        base = roots.sys / "fs/cgroup" / ("" if is_second else controller)
        inner = PurePosixPath(path.strip("/"))
        for part in (inner, *inner.parents)[:LEVELS_MAX]:
            yield str(base / part), is_second

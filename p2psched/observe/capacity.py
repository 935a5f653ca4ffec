"""What this machine has for tasks, where nobody says it: memory and GPUs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
_GPUS: Final = "nvidia[0-9]*"


def memory_mib(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Of the machine, or of the group of processes that we are in, if that may use less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroups / name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit():
            found = min(found, int(text) // MIB)
    return found


def gpu_count(devices: Path = Path("/dev")) -> int:
    """GPUs whose device files are there."""
    return sum(path.name.removeprefix("nvidia").isdigit() for path in devices.glob(_GPUS))

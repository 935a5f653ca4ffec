"""What Linux says of the memory of a process. Standard library only: a measured client loads it."""

from __future__ import annotations

from pathlib import Path


def peak_mib(pid: int | str = "self") -> float:
    """Of resident memory. Not ru_maxrss, which a child has from its parent."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no VmHWM in /proc/{pid}/status")

"""Finding and ending what outlived its starter, or a peer that was killed.

Blocking; call it in a thread. Every process that a pool starts carries the pool's folder in its
environment, so a daemon that left its process group is found too. Recorded process numbers would
not do: they may be somebody else's by now.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

from p2psched.run.environment import POOL_VARIABLE


def kill(folder: Path) -> int:
    """SIGKILL every process of this pool; returns how many there were. Does nothing without /proc.

    Goes round until nothing new turns up, because a process may fork while we look.
    """
    mark = f"{POOL_VARIABLE}={folder}".encode()
    killed: set[int] = set()
    for _ in range(5):
        found = {pid for pid in _processes() if pid not in killed and _carries(pid, mark)}
        if not found:
            break
        for pid in found:
            _end(pid, mark)
        killed |= found
    return len(killed)


def _end(pid: int, mark: bytes) -> None:
    """Kill the process that carries the mark, and no other that has got its number meanwhile."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _carries(pid, mark):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def clear(folder: Path) -> None:
    """Empty the pool's folder. What can't be removed stays; tasks get folders of new names."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _processes() -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    return []


def _carries(pid: int, mark: bytes) -> bool:
    if pid == os.getpid():
        return False
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False  # gone, or another user's

"""A control group of one task: the kernel bounds memory and processes of all of it, tells whether
it was ended for its memory, and ends whatever is left, also what calls itself something else.

A group is a folder below each of the roots that the peer has been given (`run/cgroups.py`): one for
version 2, one for each hierarchy of version 1. What a folder bounds, its files say.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from typing import Final

from .bounds import Bounds

REST: Final = "rest"  # beside the groups of tasks: whatever has none
ROUNDS_MAX: Final = 200  # a millisecond apart, until a group is empty
# Where each version notes how often a process of the group was ended for its memory.
_KILLS: Final = ("memory.events", "memory.oom_control")


class Group:
    def __init__(self, roots: list[str], name: str) -> None:
        self.folders = [f"{root}/{name}" for root in roots]
        self._roots = roots
        self.bounds_memory = False
        self.bounds_processes = False

    def make(self, limits: Bounds) -> None:
        """Raises OSError."""
        for folder in self.folders:
            with contextlib.suppress(FileExistsError):  # an attempt left it: it is empty, or ended
                os.mkdir(folder)  # noqa: PTH102 - strings all along, as beside it
            end_in(folder)
            if limits.memory is not None:
                self.bounds_memory |= _bound_memory(folder, limits.memory)
            if limits.processes is not None:
                self.bounds_processes |= _write(folder, "pids.max", limits.processes)

    def join(self) -> None:
        """This process, and what it starts from here on. Raises OSError."""
        for folder in self.folders:
            if not _write(folder, "cgroup.procs", 0):
                raise OSError(f"{folder} takes no processes")

    def __enter__(self) -> None:
        """This process is in it for now, so that what it starts is born there."""
        self.join()

    def __exit__(self, *_: object) -> None:
        for root in self._roots:
            _write(f"{root}/{REST}", "cgroup.procs", 0)

    def was_short_of_memory(self) -> bool:
        """True if the kernel has ended a process of it for its memory."""
        for folder in self.folders:
            for name in _KILLS:
                for line in _read(folder, name).splitlines():
                    key, _, count = line.partition(" ")
                    if key == "oom_kill" and count.strip() != "0":
                        return True
        return False

    def end(self) -> None:
        """Kill what is in it, and take it away."""
        for folder in self.folders:
            end_in(folder)
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106


def of(means: Mapping[str, object], name: str, limits: Bounds) -> Group | None:
    """The group of a task, made, where the peer has groups. Raises OSError."""
    roots = means.get("groups")
    if not isinstance(roots, list) or not roots:
        return None
    group = Group([str(root) for root in roots], name)
    group.make(limits)
    return group


def end_in(folder: str) -> int:
    """Kill all processes of a group but this one until none is left. How many there were."""
    killed: set[int] = set()
    for _ in range(ROUNDS_MAX):
        inside = [int(word) for word in _read(folder, "cgroup.procs").split()]
        found = [pid for pid in inside if pid != os.getpid()]
        if not found:
            break
        if len(found) < len(inside) or not _write(folder, "cgroup.kill", 1):
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        killed.update(found)
        time.sleep(0.001)
    return len(killed)


def _bound_memory(folder: str, size: int) -> bool:
    if _write(folder, "memory.max", size):  # version 2
        _write(folder, "memory.swap.max", 0)
        _write(folder, "memory.oom.group", 1)
        return True
    if _write(folder, "memory.limit_in_bytes", size):
        _write(folder, "memory.memsw.limit_in_bytes", size)
        return True
    return False


def _write(folder: str, name: str, value: int) -> bool:
    """False if the group has no such file, or doesn't take it."""
    try:
        descriptor = os.open(f"{folder}/{name}", os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(descriptor, b"%d" % value)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _read(folder: str, name: str) -> str:
    try:
        with open(f"{folder}/{name}") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""

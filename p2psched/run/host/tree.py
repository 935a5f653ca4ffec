"""All processes that descend from one, whatever groups and sessions they have made for themselves.

A host adopts what its tasks leave behind, where the system can do that (PR_SET_CHILD_SUBREAPER), so
that a daemon of a task descends from its host, too. Linux only; elsewhere nothing is found.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import time
from collections.abc import Collection
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
ROUNDS_MAX: Final = 100  # a millisecond apart: what is ended may have had children meanwhile


def adopt_orphans() -> bool:
    """Become the parent of whatever a descendant leaves behind. False if that can't be."""
    try:
        library = importlib.import_module("ctypes").CDLL(None)
        return bool(library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def descendants(root: int) -> list[int]:
    """Of a process, without itself; those that are over and not reaped are left out."""
    families = _families()
    found: list[int] = []
    ahead = [root]
    while ahead:
        more = [pid for pid, is_over in families.pop(ahead.pop(), []) if not is_over]
        ahead += more
        found += more
    return found


def below(root: int) -> list[int]:
    """As `descendants`, with those that are over, and asks only the processes of the tree: a scan
    of all costs milliseconds. One that changes its parent meanwhile may be missed, but nothing is
    found only if there is nothing."""
    found: list[int] = []
    ahead = [root]
    while ahead:
        pid = ahead.pop()
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
            for thread in threads:
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                    more = [int(word) for word in file.read().split()]
                ahead += more
                found += more
        except OSError:  # it is over
            continue
    return found


def tells_children() -> bool:
    """True if this kernel makes `below` possible."""
    return os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")  # noqa: PTH110


def children(parent: int) -> list[int]:
    """Also those that are over and not reaped."""
    return [pid for pid, _ in _families().get(parent, [])]


def state_of(pid: int) -> bytes:
    """Of a process: one letter, X if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0]
    except OSError:
        return b"X"


def _families() -> dict[int, list[tuple[int, bool]]]:
    """Parent -> its children, and whether they are over."""
    found: dict[int, list[tuple[int, bool]]] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is not worth its import time
            if not name.isdecimal():
                continue
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                found.setdefault(int(parent), []).append((int(name), state == b"Z"))
    return found


def signal_all(root: int, number: int, *, spared: Collection[int] = ()) -> int:
    """To each descendant but those. How many there were."""
    reached = [pid for pid in descendants(root) if pid not in spared]
    for pid in reached:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return len(reached)


def end_children(parent: int, *, spared: Collection[int]) -> None:
    """Kill and reap each child of this process but those, with all that descends from it, until
    none is left."""
    for _ in range(ROUNDS_MAX):
        found = [child for child in children(parent) if child not in spared]
        for child in found:
            for pid in (*descendants(child), child):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        if not found:
            return
        time.sleep(0.001)


def end_all(root: int, *, spared: Collection[int] = ()) -> None:
    """Kill each descendant but those, until none is left."""
    find = below if tells_children() else descendants
    for _ in range(ROUNDS_MAX):
        found = [pid for pid in find(root) if pid not in spared]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)

"""Control groups of a pool: found, made ready, and emptied.

A peer makes groups only where it was given room: below the folders that it was told of
(`start --cgroup`), or below its own group if that was delegated to it, as `Delegate=yes` of systemd
does. A group belongs to whoever made it, and root could write into all of them.

    ROOT/p2psched-MARK/rest   the starter and whatever has no group of its own
    ROOT/p2psched-MARK/...    a task each

MARK stands for the pool's folder, so what a killed peer has left is found at its next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2psched.run.host.groups import REST, end_in

_CONTROLLERS: Final = ("memory", "pids")
_DELEGATED: Final = ("user.delegate", "trusted.delegate")


class Groups(msgspec.Struct, frozen=True):
    folders: tuple[str, ...] = ()  # where tasks get theirs
    memory: bool = False  # is bounded
    processes: bool = False
    lack: str = ""  # why it is not all of that

    def admit(self, pid: int) -> None:
        """This process, and what it starts, is the pool's."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                Path(folder, REST, "cgroup.procs").write_text(str(pid))

    def empty(self) -> None:
        """Kill what is in any of them; they stay."""
        for folder in self.folders:
            for entry in Path(folder).iterdir():
                if entry.is_dir():
                    end_in(str(entry))

    def end(self) -> int:
        """Kill what is in any of them, and take them away. How many processes there were."""
        return sum(_end_below(Path(folder)) for folder in self.folders)


NONE: Final = Groups(lack="this peer has no control groups of its own: start it with --cgroup")


def prepare(roots: Sequence[str], folder: Path) -> Groups:
    """Of the pool with this folder. What an earlier life of it has left there is ended."""
    mark = hashlib.blake2b(str(folder).encode(), digest_size=6).hexdigest()
    ready: list[str] = []
    controllers: set[str] = set()
    lacks: list[str] = []
    for root in [Path(name) for name in roots] or delegated():
        base = root / f"p2psched-{mark}"
        try:
            if base.is_dir():
                _end_below(base)
            (base / REST).mkdir(parents=True, exist_ok=True)
            controllers |= _controllers(root, base)
            ready.append(str(base))
        except OSError as error:
            lacks.append(f"{root}: {error.strerror}")
    if not ready and not lacks:
        return NONE
    missing = [name for name in _CONTROLLERS if name not in controllers]
    if missing and not lacks:
        lacks.append(f"there is no controller for {' and '.join(missing)} in {', '.join(ready)}")
    return Groups(
        folders=tuple(ready),
        memory="memory" in controllers,
        processes="pids" in controllers,
        lack="; ".join(lacks),
    )


def delegated(process: Path = Path("/proc/self")) -> list[Path]:
    """This process's own group of version 2, if it was given to it; else nothing."""
    try:
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        points = [words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2"]
        lines = (process / "cgroup").read_text().splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
        found = Path(points[0] + own.rstrip("/"))
    except (OSError, ValueError, IndexError, StopIteration):
        return []
    is_ours = os.geteuid() != 0 and os.access(found / "cgroup.subtree_control", os.W_OK)
    return [found] if is_ours or any(_says(found, name) for name in _DELEGATED) else []


def _says(folder: Path, attribute: str) -> bool:
    try:
        return os.getxattr(folder, attribute) == b"1"
    except OSError:
        return False


def _controllers(root: Path, base: Path) -> set[str]:
    """What groups below `base` bound. Raises OSError."""
    if not (root / "cgroup.controllers").exists():  # version 1: a hierarchy has its files
        files = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
        return {name for name, file in files.items() if (base / REST / file).exists()}
    there = (root / "cgroup.controllers").read_text().split()
    wanted = [name for name in _CONTROLLERS if name in there]
    for folder in (root, base):
        _enable(folder, wanted)
    return set(wanted)


def _enable(folder: Path, controllers: Sequence[str]) -> None:
    """For the groups below. A group with processes can't have that, so ours moves a level down."""
    text = " ".join(f"+{name}" for name in controllers)
    control = folder / "cgroup.subtree_control"
    try:
        control.write_text(text)
    except OSError:
        own = folder / "p2psched-peer"
        own.mkdir(exist_ok=True)
        (own / "cgroup.procs").write_text(str(os.getpid()))
        control.write_text(text)


def _end_below(base: Path) -> int:
    killed = 0
    with contextlib.suppress(OSError):
        for folder in (*(entry for entry in base.iterdir() if entry.is_dir()), base):
            killed += end_in(str(folder))
            with contextlib.suppress(OSError):
                folder.rmdir()
    return killed

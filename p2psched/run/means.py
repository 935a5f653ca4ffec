"""What a peer has to bound its tasks with: looked for once, at its start, and told by `status`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2psched.model.status_messages import Kept
from p2psched.run import cgroups
from p2psched.run.host import sandbox

PROBE_S: Final = 10.0
BWRAP: Final = "bwrap"
LOOKS: Final = "looks, each 50 ms"
KERNEL: Final = "the kernel"


class Setup(msgspec.Struct, frozen=True):
    """What the pool is told of its peer."""

    hidden: tuple[str, ...] = ()  # folders, and files, that no sandbox shows
    cgroups: tuple[str, ...] = ()  # folders that are the peer's to make groups in
    pass_env: tuple[str, ...] = ()  # variables of the peer that tasks see besides


class Means(msgspec.Struct, frozen=True):
    bwrap: str = ""  # where it is, if it works
    no_bwrap: str = "the peer has not looked yet"
    hidden: tuple[str, ...] = ()
    groups: cgroups.Groups = cgroups.NONE

    def words(self) -> dict[str, object]:
        """For a host."""
        hidden, groups = list(self.hidden), list(self.groups.folders)
        return {"bwrap": self.bwrap, "hidden": hidden, "groups": groups}

    @property
    def sandboxes(self) -> tuple[str, ...]:
        return (BWRAP,) if self.bwrap else ()

    def kept(self) -> tuple[Kept, ...]:
        """What is enforced here, by whom, and why not by more."""
        groups = self.groups
        is_linux = sys.platform == "linux"
        looks = LOOKS if is_linux else ""
        lack = "" if is_linux else "tasks are looked at on Linux only"
        rows = [
            Kept("mem", "a control group" if groups.memory else looks, groups.lack or lack),
            Kept("procs", "a control group" if groups.processes else looks, groups.lack or lack),
        ]
        rows += [Kept(name, KERNEL, "") for name in ("files", "cpu", "fsize", "core")]
        return (*rows, Kept("sandbox", self.bwrap, self.no_bwrap))


NOTHING: Final = Means()


def find(setup: Setup, folder: Path, environment: Mapping[str, str]) -> Means:
    """Of a pool with this folder. Blocks, and starts bubblewrap once if it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = _hidden(setup.hidden, environment)
    bwrap, lack = _bubblewrap(hidden, folder, environment)
    return Means(
        bwrap=bwrap,
        no_bwrap=lack,
        hidden=hidden,
        groups=cgroups.prepare(setup.cgroups, folder),
    )


def _hidden(folders: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Without those that aren't there, and without what holds all."""
    homes = ("/home", "/root", environment.get("HOME", ""))
    named = [os.path.realpath(name) for name in (*homes, *folders) if name]
    return tuple(sorted({name for name in named if name != "/" and Path(name).exists()}))


def _bubblewrap(
    hidden: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> tuple[str, str]:
    """Where it is, or why there is none that works."""
    found = shutil.which(BWRAP, path=environment.get("PATH"))
    if found is None:
        return "", "no bubblewrap (bwrap) in PATH: install the package bubblewrap, and restart"
    command = sandbox.words(found, list(hidden), own=[str(folder)], cwd=str(folder))
    try:
        done = subprocess.run(
            [*command, "--", shutil.which("true") or "/bin/true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{found} can't be run ({error})"
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())[:200]
        return "", f"{found} makes no sandbox here: {said or f'exit code {done.returncode}'}"
    return found, ""

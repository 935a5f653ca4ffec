"""A program in a sandbox of bubblewrap: the system, read-only; its own folder, writable; its own
/tmp, processes and, if the job says so, no network. Nothing of the peer: neither its data folder,
nor other tasks' folders, nor a home, nor its environment.
"""

from __future__ import annotations

import os
from typing import Final

from .bounds import Bounds

# The program itself runs in two processes of bubblewrap.
PROCESSES: Final = 2
_SHUT_IN: Final = (
    *("--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
    *("--unshare-cgroup-try", "--die-with-parent", "--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    # Sockets of the system's services are there, and would be open to who can see them.
    *("--tmpfs", "/run", "--ro-bind-try", "/run/systemd/resolve", "/run/systemd/resolve"),
    *("--tmpfs", "/tmp", "--tmpfs", "/var/tmp"),  # noqa: S108 - its own
)


def words(
    bwrap: str, hidden: list[str], *, own: list[str], cwd: str, network: bool = True
) -> list[str]:
    """What goes before the program. `own` are the task's folders; what is `hidden` it can't see."""
    found = [bwrap, *_SHUT_IN]
    for path in hidden:
        is_file = os.path.isfile(path)  # noqa: PTH113 - strings all along, as beside it
        found += ("--ro-bind", "/dev/null", path) if is_file else ("--tmpfs", path)
    for path in own:
        found += ("--bind", path, path)
    found += ("--chdir", cwd)
    return found if network else [*found, "--unshare-net"]


def wrapped(
    argv: list[str],
    program: str,
    means: dict[str, object],
    limits: Bounds,
    *,
    own: list[str],
    cwd: str | None,
) -> list[str]:
    """The command that runs this program so, in the first of its own folders if it names no other.
    Raises ValueError if that can't be here: then it must
    not run at all."""
    bwrap, hidden = str(means.get("bwrap") or ""), means.get("hidden")
    if not bwrap or not isinstance(hidden, list):
        raise ValueError(f"this peer can't make a sandbox with {limits.sandbox}")
    names = [str(path) for path in hidden]
    for path in (program, os.path.realpath(program), cwd or "/"):
        if path.startswith("/") and any(path.startswith(f"{name}/") for name in names):
            raise ValueError(
                f"{path} is hidden in a sandbox, for it is in the home or the data folder of "
                "the peer: install it for all users"
            )
    before = words(bwrap, names, own=own, cwd=cwd or own[0], network=limits.network)
    return [*before, "--", program, *argv[1:]]

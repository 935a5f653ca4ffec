"""Options of peers about what bounds their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from p2psched.model.errors import UsageError

CgroupOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--cgroup",
        metavar="DIR",
        help="A control group where it may make groups for tasks with limits; of version 1, one "
        "for each hierarchy. Default: its own, if that was delegated to it.",
        show_default=False,
    ),
]
PeerEnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pass-env", metavar="NAME", help="A variable of its environment that tasks see, too."
    ),
]


def control_groups(folders: list[Path] | None) -> tuple[str, ...]:
    """Raises UsageError if one is none."""
    for folder in folders or []:
        if not (folder / "cgroup.procs").exists():
            raise UsageError(
                f"--cgroup {folder} is no control group: there is no {folder / 'cgroup.procs'}"
            )
    return tuple(str(folder.absolute()) for folder in folders or [])

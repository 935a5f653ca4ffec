"""Options of peers about what bounds their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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

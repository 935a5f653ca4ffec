"""`submit-job --checkpoint`: a task that is killed goes on from what it saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

_Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar="DIR",
        help="A folder that goes with the task: what is renamed into it is kept over kills, also "
        "of the peer, and is there when the task starts again. See docs/checkpoints.md.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """The options of it."""

    checkpoint: _Checkpoint = ""

"""Options of tasks that save what they have, and of peers that are left, or spare themselves."""

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


BatteryMin = Annotated[
    int,
    typer.Option(
        "--battery-min",
        metavar="PERCENT",
        min=0,
        max=100,
        help="With less, and unplugged, the peer drains itself until it is plugged in. 0: never.",
    ),
]
DutyOption = Annotated[
    int,
    typer.Option(
        "--duty",
        metavar="PERCENT",
        min=1,
        max=100,
        help="Of the time its slots may be in use, all together. Others give it work accordingly.",
    ),
]
CheckpointBudget = Annotated[
    str,
    typer.Option(
        "--checkpoint-budget",
        metavar="SIZE",
        help="Bytes a minute that go to copies of tasks' checkpoints on other peers.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """The options of it."""

    checkpoint: _Checkpoint = ""

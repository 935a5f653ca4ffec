"""How the inputs of a job of batches are cut, as its command says. See `client.batches`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from p2psched.model.messages import JobView

MODULE: Final = "p2psched_batch"
_COMMAND: Final = re.compile(rf"{MODULE}:run_(\d+)_by_(\d+)\(\)")


@dataclass(frozen=True, slots=True)
class Shape:
    """How the inputs of a job are cut."""

    inputs: int
    batch: int

    def of_task(self, index: int) -> range:
        """The numbers of its inputs, from 0 on."""
        return range(index * self.batch, min((index + 1) * self.batch, self.inputs))


def shape_of(view: JobView) -> Shape | None:
    """None for a job that is no job of batches."""
    found = _COMMAND.fullmatch(view.command) if view.kind == "function" else None
    return Shape(int(found[1]), int(found[2])) if found else None

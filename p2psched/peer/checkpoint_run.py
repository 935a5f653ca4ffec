"""A task that saves checkpoints and runs here: see `checkpoints`."""

from __future__ import annotations

import asyncio

from p2psched.model.execution import Batch
from p2psched.model.ids import PeerId


class Run:
    """One batch, of one task."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.task = batch.tasks.first
        self.preparing: asyncio.Task[None] | None = None
        self.tending: asyncio.Task[None] | None = None
        self.watches: list[int] = []
        self.renamed = asyncio.Event()  # what it saves as files has changed, or it is over
        self.is_changed = False
        self.saved = asyncio.Event()  # there is a newer checkpoint, or it is over
        self.newest: tuple[int, int] | None = None
        self.copied: tuple[int, int] | None = None  # the newest that is elsewhere
        self.holder: PeerId | None = None
        self.leaves = False  # it is given back: its checkpoint goes before it
        self.ended = asyncio.Event()  # no process of it is left
        self.over = self.taken = False  # it has ended; and its last checkpoint was taken
        self.done = False  # it has a result

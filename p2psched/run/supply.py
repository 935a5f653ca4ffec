"""Batches whose code, arguments or files are blobs: made ready beside those that run.

Such a batch takes no slot until its first part is here, and others may overtake it meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass

import msgspec

from p2psched.model.errors import NoSpace, P2PSchedError
from p2psched.model.execution import Batch
from p2psched.model.job import Cause
from p2psched.run.arguments import ArgumentReader, Part


@dataclass(frozen=True, slots=True)
class Lack:
    """Why there is nothing to run."""

    text: str
    cause: Cause = Cause.NOT_STARTABLE


OnPart = Callable[[Part | Lack], None]
Ready = tuple[Part, AsyncIterator[Part]]


class Supply:
    """Bounded by its user: one batch that gets ready, or runs, at most once each."""

    def __init__(self, reader: ArgumentReader, group: asyncio.TaskGroup) -> None:
        self._reader = reader
        self._group = group
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._waiting: dict[int, Batch] = {}  # that have not started
        self._ready: dict[int, Ready] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def getting_ready(self) -> Collection[int]:
        """Batches that have not started, for what they need is not here."""
        return self._waiting.keys()

    def is_at_hand(self, batch: Batch) -> bool:
        """True if it needs nothing that is not here: then it needn't get ready."""
        return self._reader.is_at_hand(batch)

    def get_ready(self, batch: Batch, on_ready: Callable[[Batch, Lack | None], None]) -> None:
        """`on_ready` gets why it can't run, or None; then `take` it."""
        parts = self._reader.parts(batch)

        def on_part(part: Part | Lack) -> None:
            waited = self._waiting.pop(batch.id)
            if isinstance(part, Part):
                self._ready[batch.id] = part, parts
            on_ready(waited, part if isinstance(part, Lack) else None)

        self._waiting[batch.id] = batch
        self.next(batch.id, parts, on_part)

    def renew(self, batch: int, until_ms: int) -> None:
        """See `Executor.renew`."""
        if batch in self._waiting:
            waits = self._waiting[batch]
            self._waiting[batch] = msgspec.structs.replace(waits, until_ms=until_ms)

    def next(self, batch: int, parts: AsyncIterator[Part], on_part: OnPart) -> None:
        """`on_part` gets the next part, or why there is none; from the loop, soon."""
        assert batch not in self._tasks
        self._tasks[batch] = self._group.create_task(self._bring(batch, parts, on_part))

    def take(self, batch: int) -> Ready | None:
        """What is ready for a batch."""
        return self._ready.pop(batch, None)

    def give_back(self, batch: int, ready: Ready) -> None:
        """It can't start yet."""
        self._ready[batch] = ready

    def cancel(self, batch: int) -> Batch | None:
        """Forget it. Returns the batch if it was getting ready."""
        self._ready.pop(batch, None)
        task = self._tasks.pop(batch, None)
        if task is not None:
            task.cancel()
        return self._waiting.pop(batch, None)

    async def _bring(self, batch: int, parts: AsyncIterator[Part], on_part: OnPart) -> None:
        found: Part | Lack
        try:
            found = await anext(parts)
        except ValueError as error:
            found = Lack(f"the job's arguments can't be read: {error}")
        except (P2PSchedError, OSError) as error:
            cause = Cause.NO_SPACE if isinstance(error, NoSpace) else Cause.NOT_STARTABLE
            found = Lack(f"what the task needs can't be brought to this peer: {error}", cause)
        del self._tasks[batch]
        on_part(found)

"""Port `Executor`: where tasks run.

The owner hands over batches and never waits; how they go comes back as events, in order for each
batch. The executor knows nothing of the ledger: what it says is judged by the grant later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from p2psched.model.execution import Batch, ExecutorEvent, Standing, Tending
from p2psched.model.job import Cause


class Executor(Protocol):
    def start(self, batch: Batch) -> None:
        """Run a batch. Never blocks, never raises: what can't start ends as NOT_STARTABLE."""
        ...

    def stop(self, batch: int, cause: Cause) -> None:
        """End a batch and every process of the task that runs (SIGTERM, grace, SIGKILL of the
        whole group). `Ended` follows within 2 s, or the grace that the job
        has of its own; the task that ran is in no `Progress`. No error
        if the batch is unknown or over."""
        ...

    def end_task(self, batch: int, index: int, cause: Cause, why: str) -> None:
        """End the attempt of one task of a batch, if it is the one that runs: as `stop` does, but
        its end comes as its result, by this cause. The rest of the batch goes on, or is said to be
        unstarted."""
        ...

    def renew(self, batch: int, until_ms: int) -> None:
        """What runs of this batch may run until then (see `Batch.until_ms`), and is ended there
        whatever becomes of this process. No error if the batch is unknown or over."""
        ...

    def take_back(self) -> None:
        """Give back what has not begun, unless it must not start twice or saves checkpoints: whole
        batches as `Ended`, what stands behind a task that runs as `GaveBack`; `TakenBack` behind
        all of it."""
        ...

    def standing(self) -> Standing:
        """What it has, and what of that has not begun."""
        ...

    def tend(self, how: Tending, batches: frozenset[int]) -> None:
        """These should have begun long ago. Whatever has begun goes on; what has not may come back
        as `Ended`, unstarted."""
        ...


OnExecutorEvent = Callable[[ExecutorEvent], None]

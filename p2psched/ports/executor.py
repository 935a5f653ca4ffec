"""Port `Executor`: where tasks run.

The owner hands over batches and never waits; how they go comes back as events, in order for each
batch. The executor knows nothing of the ledger: what it says is judged by the grant later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.taskset import TaskSet


class Batch(msgspec.Struct, frozen=True):
    """Tasks of one job, one grant and one attempt number, run one after another in one place."""

    id: int  # unique in this process
    job: JobId
    spec: JobSpec
    tasks: TaskSet
    grant: int
    attempt: int  # 1 for the first
    fence: str  # "generation.grant.attempt"


class Progress(msgspec.Struct, frozen=True):
    """Some tasks of a batch ended. May come many times; never names a task twice."""

    batch: int
    segments: tuple[Segment, ...]


class Ended(msgspec.Struct, frozen=True):
    """Last event of a batch. `unstarted` never began and may run elsewhere; every other task of
    the batch was in a `Progress` before, unless it was stopped."""

    batch: int
    unstarted: TaskSet


ExecutorEvent = Progress | Ended


class Executor(Protocol):
    def start(self, batch: Batch) -> None:
        """Run a batch. Never blocks, never raises: what can't start ends as NOT_STARTABLE."""
        ...

    def stop(self, batch: int, cause: Cause) -> None:
        """End a batch and every process of the task that runs (SIGTERM, grace, SIGKILL of the
        whole group). `Ended` follows within 2 s; the task that ran is in no `Progress`. No error
        if the batch is unknown or over."""
        ...


OnExecutorEvent = Callable[[ExecutorEvent], None]

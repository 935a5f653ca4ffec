"""From which checkpoint an attempt goes on: what its owner tells the ledger, for people."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet


class NoteResumed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=57):
    """An attempt under `grant` begins. One for each such attempt, and none for what is saved."""

    job: JobId
    grant: int
    task: int
    attempt: int
    number: int  # of the checkpoint; 0: it has run before, and none could be had
    saved_wall_ms: int  # by the clock of who saved it
    source: PeerId | None  # from whose disk it came

    def __post_init__(self) -> None:
        if not (self.task >= 0 and self.attempt > 0 and self.number >= 0 and self.grant >= 0):
            raise ValueError("these are no words about a checkpoint")


class Resumed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=91):
    """`peer` begins an attempt of a task at that checkpoint, or, if `number` is 0, anew."""

    job: JobId
    grant: int
    peer: PeerId
    tasks: TaskSet  # one
    attempt: int
    number: int
    saved_wall_ms: int
    source: PeerId | None


class Resumption(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest of a task that its job remembers."""

    task: int
    peer: PeerId
    source: PeerId | None
    number: int
    saved_wall_ms: int
    began_wall_ms: int

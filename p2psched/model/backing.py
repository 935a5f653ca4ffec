"""Backups of tasks: a task that runs may run on another peer, too, and its first good end counts.

Nothing of this is about copies of the ledger (`backup_messages`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.ids import JobId, PeerId
from p2psched.model.moves import Moved, Transfer
from p2psched.model.precedence import Preempted
from p2psched.model.taskset import TaskSet

Grant = int  # as in `commands`
REPLICAS_MAX: Final = 5
LAGGING_MAX: Final = 64  # tasks in one word of an owner: those that run longest


class Backing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a job wants its tasks backed up for."""

    replicas: int = 1  # peers that each task runs on, as far as there are so many
    speculate: bool = False  # a task that takes far longer than its like is begun elsewhere, too

    def __post_init__(self) -> None:
        if type(self.replicas) is not int or not 1 <= self.replicas <= REPLICAS_MAX:
            raise ValueError(f"replicas are 1 to {REPLICAS_MAX}, not {self.replicas!r}")


class BackUp(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=61):
    """A live incarnation of `peer` shall run these tasks, too, which others own; or no more."""

    job: JobId
    tasks: TaskSet
    peer: PeerId
    incarnation: int
    speculates: bool = False  # because they are late: once for each task, and few of a job
    ends: bool = False  # it shall not: they take long there, too


class BackedUp(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=98):
    """A `Granted` says the same of the grant."""

    job: JobId
    grant: Grant
    peer: PeerId
    tasks: TaskSet
    speculates: bool = False


class Promoted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=99):
    """Their owner is gone, and `peer` owns them, which has run them, too, under this grant."""

    job: JobId
    grant: Grant
    peer: PeerId
    tasks: TaskSet


PlaceCommand = Transfer | BackUp  # who owns or runs tasks that somebody owns
PlaceEvent = Moved | BackedUp | Promoted | Preempted


class BackupView(msgspec.Struct, frozen=True, array_like=True):
    """On how many peers tasks of a job run, for who looks at it."""

    replicas: int = 1  # that it wants
    speculates: bool = False
    tasks: int = 0  # that run on more peers than their owner
    won: int = 0  # whose backup ended first
    late: int = 0  # that were begun once more because of that, and not ended first there yet
    at: tuple[tuple[PeerId, int], ...] = ()  # backups, where
    short: str = ""  # why there are fewer replicas than it wants, if it is so; in a whole view


class LaggingTask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that runs, as its owner sees it."""

    job: JobId
    grant: Grant
    index: int
    ran_ms: int
    left_ms: int | None = None  # at the pace that it tells; None: it tells none
    stalls: bool = False  # by the job's own rules of pace


class Lagging(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=158):
    """To the coordinator: tasks of jobs that speculate, and have run for a while. Advice only."""

    tasks: tuple[LaggingTask, ...]

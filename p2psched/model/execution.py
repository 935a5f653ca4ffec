"""What the owner and its executor, and the ledger and its listener, hand to each other."""

from __future__ import annotations

import enum

import msgspec

from p2psched.model.commands import Envelope
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, Segment
from p2psched.model.raft import Membership
from p2psched.model.taskset import TaskSet


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Tasks of one job, one grant and one attempt number, run one after another in one place."""

    id: int  # unique in this process
    job: JobId
    spec: JobSpec
    tasks: TaskSet
    grant: int
    attempt: int  # 1 for the first
    fence: str  # "generation.grant.attempt"
    expected_us: int | None = None  # what all of it may take: a guess, if there is one
    until_ms: int = 0  # by this machine's boot clock: it may run so long, or longer; 0: for ever


class Progress(msgspec.Struct, frozen=True, gc=False):
    """Some tasks of a batch ended. May come many times; never names a task twice."""

    batch: int
    segments: tuple[Segment, ...]


class Ended(msgspec.Struct, frozen=True, gc=False):
    """Last event of a batch. `unstarted` never began and may run elsewhere; every other task of
    the batch was in a `Progress` before, unless it was stopped."""

    batch: int
    unstarted: TaskSet


class GaveBack(msgspec.Struct, frozen=True, gc=False):
    """Tasks at the end of a batch that goes on have not begun: they won't, under this batch."""

    batch: int
    tasks: TaskSet


class TakenBack(msgspec.Struct, frozen=True, gc=False):
    """Whatever came of a `take_back` was said before this."""


class TaskReport(msgspec.Struct, frozen=True, gc=False):
    """How far a task is that runs."""

    batch: int
    index: int
    ran_ms: int
    quiet_ms: int  # since its last sign of life, or since it began
    said_ms: int | None = None  # since `done` was said; None: it has said nothing
    done: float = 0.0
    total: float | None = None
    note: str = ""


class Reports(msgspec.Struct, frozen=True, gc=False):
    """Of all tasks that run and are watched, or have said something: once a second while there are
    any, and once when there are none any more."""

    reports: tuple[TaskReport, ...]


BatchEvent = Progress | Ended
ExecutorEvent = BatchEvent | GaveBack | TakenBack | Reports


class Unbegun(msgspec.Struct, frozen=True, gc=False):
    """A batch of which nothing has begun. `reason`: why that is as it should be; empty if it should
    have begun long ago, and then `what` says what is there instead."""

    batch: int
    what: str
    reason: str = ""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What an executor has just now."""

    batches: frozenset[int] = frozenset()  # whose `Ended` is still to come
    unbegun: tuple[Unbegun, ...] = ()


class Tending(enum.IntEnum):
    """What may help an executor in which something does not begin: the gentlest first."""

    AGAIN = 1  # look again at all that waits
    HOSTS = 2  # end the processes that should have begun it, and only those
    ALL = 3  # end all processes, if none of them has begun anything


class Committed(msgspec.Struct, frozen=True, gc=False):
    """One committed entry. `envelopes` may be empty (the engine's own entries)."""

    index: int  # of the entry; rises by one
    stamp_ms: int  # ledger time: never runs backwards
    wall_ms: int  # Unix time of the stamping leader, for people only
    envelopes: tuple[Envelope, ...]
    membership: Membership | None = None  # if the entry is about who belongs
    size: int = 0  # bytes of the entry, about

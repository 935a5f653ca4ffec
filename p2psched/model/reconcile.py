"""What became of the work of a peer that was cut off, once it is back (`docs/disconnection.md`)."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, Segment
from p2psched.model.taskset import TaskSet


class Judged(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tasks of one grant of this peer that met the same fate."""

    job: JobId
    grant: int
    tasks: TaskSet
    current: int = 0  # the grant that counts instead; 0: none does, or it isn't known here


class SpoolOutcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job that waited in the spool."""

    job: JobId
    name: str
    outcome: str  # accepted, known (submitted before), or why it was refused


class Reconciliation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The report of one time without a majority. Tasks are in one of the first four at most."""

    away_ms: int
    decided_ms: int  # from when a majority was heard again to the last word on what was kept
    restarts: int  # of the process meanwhile, at which it went on from its own disk
    committed: tuple[Judged, ...] = ()  # results from here that count
    discarded: tuple[Judged, ...] = ()  # results from here that don't: RESULT_DISCARDED
    ended: tuple[Judged, ...] = ()  # work that was ended without a result: others have it
    overdue: tuple[Judged, ...] = ()  # work that was ended because max_disconnect was over
    spooled: tuple[SpoolOutcome, ...] = ()
    left_off: int = 0  # lines that are more than a report holds; their tasks count below
    tasks_committed: int = 0
    tasks_discarded: int = 0
    tasks_ended: int = 0
    number: int = 0  # of the report on this peer
    began_wall_ms: int = 0  # for people
    back_wall_ms: int = 0
    told_ms: int = 0  # from when a majority was heard again to this report

    @property
    def is_empty(self) -> bool:
        return not (
            self.tasks_committed or self.tasks_discarded or self.tasks_ended or self.spooled
        )


# --- what a peer knows from its own disk ----------------------------------------------------------


class OwnedPart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tasks that it was granted and has no result of."""

    job: JobId
    grant: int
    attempt: int
    tasks: TaskSet


class KeptResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How tasks ended here, before the ledger has judged it."""

    job: JobId
    grant: int
    segment: Segment
    copies: int = 1  # disks that its large parts have to be on


class Recollection(msgspec.Struct, frozen=True):
    """What a process finds of the one before it."""

    away_ms: int = 0  # how long that has been without a majority, with the time since
    incarnation: int = 0  # that worked on what it owned
    since: int = 0  # the last one that heard a majority
    cursor: int = 0  # of a follower: how far it was fed
    owned: tuple[OwnedPart, ...] = ()
    results: tuple[KeptResult, ...] = ()
    specs: dict[JobId, JobSpec] = {}
    spool: tuple[tuple[JobId, JobSpec], ...] = ()

    @property
    def has_work(self) -> bool:
        return bool(self.owned or self.results)

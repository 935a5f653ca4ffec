"""What is asked of a peer about its times without a majority. All of it is answered by that peer,
without a majority too. Fields are appended, with defaults.
"""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.reconcile import Reconciliation
from p2psched.model.taskset import TaskSet


class SpoolJob(msgspec.Struct, frozen=True, array_like=True, tag=149):
    """Keep this job on your disk, and submit it once you can. Safe to repeat."""

    job: JobId
    spec: JobSpec


class ListSpool(msgspec.Struct, frozen=True, array_like=True, tag=150):
    pass


class RemoveSpooled(msgspec.Struct, frozen=True, array_like=True, tag=151):
    """Forget it. Refused once it is on its way to the ledger."""

    job: JobId


class GetReconciles(msgspec.Struct, frozen=True, array_like=True, tag=152):
    """The reports that this peer has."""


class GrantsOf(msgspec.Struct, frozen=True, array_like=True, tag=153):
    """Under which grants these tasks are, or have ended. Answered by who holds the ledger."""

    job: JobId
    tasks: TaskSet


SpoolCall = SpoolJob | ListSpool | RemoveSpooled
SeparationCall = SpoolCall | GetReconciles
CutOffCall = SeparationCall | GrantsOf


class SpoolReceipt(msgspec.Struct, frozen=True, array_like=True, tag=149):
    """It is on this peer's disk. The job is not accepted yet."""

    job: JobId
    place: int
    ahead: int  # jobs that are submitted before it


class SpooledJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    job: JobId
    name: str
    tasks: int
    command: str
    submitter: str
    wall_ms: int  # when the receipt was given, for people


class SpoolList(msgspec.Struct, frozen=True, array_like=True, tag=150):
    jobs: tuple[SpooledJob, ...]  # in order
    away_ms: int  # since no majority is heard; 0: one is


class ReconcileList(msgspec.Struct, frozen=True, array_like=True, tag=152):
    reports: tuple[Reconciliation, ...]  # oldest first
    away_ms: int
    spooled: int
    open: bool = False  # a report is still to come


class GrantsNow(msgspec.Struct, frozen=True, array_like=True, tag=153):
    grants: tuple[tuple[int, TaskSet], ...]


SeparationAnswer = SpoolReceipt | SpoolList | ReconcileList | GrantsNow

"""What every peer learns of retries by applying."""

from __future__ import annotations

import msgspec

from p2psched.model.cause import Cause
from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet


class Alerted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=85):
    """Somebody should look at this job. Once for each cause, as its rule says (`Severity`)."""

    job: JobId
    peer: PeerId  # where the attempt was that led to it
    tasks: TaskSet
    cause: Cause
    severity: str
    why: str = ""  # if the cause doesn't say it


class Delayed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=86):
    """Tasks whose attempts have ended wait until then, in ledger time."""

    job: JobId
    until_ms: int
    tasks: TaskSet


RetryEvent = Alerted | Delayed

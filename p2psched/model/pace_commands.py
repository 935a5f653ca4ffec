"""What the ledger is told of tasks that are too slow, or silent."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId
from p2psched.model.resumed import NoteResumed


class Warn(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=56):
    """Somebody should look at this task, which runs under this grant. The first one of a job makes
    an alert, and the others nothing."""

    job: JobId
    grant: int
    index: int
    why: str


Said = NoteResumed | Warn  # by an owner, of a task that runs

"""What the ledger is told of tasks that are too slow, or silent."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId


class Warn(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=56):
    """Somebody should look at this task, which runs under this grant. The first one of a job makes
    an alert, and the others nothing."""

    job: JobId
    grant: int
    index: int
    why: str

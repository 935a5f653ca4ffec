"""What the history of a job has besides what the ledger says."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import JobId


class HistoryCut(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=94):
    """A result store has let go of so many events here: the history had become too long."""

    job: JobId
    events: int

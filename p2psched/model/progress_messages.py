"""How far running tasks are: what a client asks, and what peers ask each other.

Never through the ledger: the peer that a client asks asks the owners, each at most once a second
however many ask it. Tags are for ever; fields are only appended, with defaults.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.explain_messages import ExplainAnswer, ExplainCall
from p2psched.model.ids import JobId, PeerId

ROWS_MAX: Final = 256  # of one answer: about 30 KiB at most


class TaskProgress(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Of a task that runs, as of a moment ago."""

    job: JobId
    index: int
    attempt: int
    ran_ms: int
    quiet_ms: int  # since its last sign of life
    done: float | None = None  # None: it has said nothing
    total: float | None = None
    note: str = ""
    left_ms: int | None = None  # at its pace
    finding: str = ""  # why somebody should look at it
    peer: PeerId = PeerId("")  # where it runs


class GetProgress(msgspec.Struct, frozen=True, array_like=True, tag=134):
    """Of the tasks of a job that run, with a limit or rules or that say how far they are: the first
    of them."""

    job: JobId


class ProgressOf(msgspec.Struct, frozen=True, array_like=True, tag=135):
    """One peer to another: what runs at you, unless it is as it was at `seen`."""

    seen: int = 0


class JobProgress(msgspec.Struct, frozen=True, array_like=True, tag=134):
    tasks: tuple[TaskProgress, ...]
    silent: tuple[PeerId, ...] = ()  # owners that did not say


class ProgressTold(msgspec.Struct, frozen=True, array_like=True, tag=135):
    """`tasks`: None if nothing is new."""

    version: int
    tasks: tuple[TaskProgress, ...] | None = None


ProgressCall = GetProgress | ProgressOf
ProgressAnswer = JobProgress | ProgressTold
TaskCall = ExplainCall | ProgressCall  # of tasks that are known by now
TaskAnswer = ExplainAnswer | ProgressAnswer


def done_text(done: float, total: float | None) -> str:
    """`45 % (450/1000)`."""
    if not total:
        return f"{done:g}"
    return f"{100 * min(1.0, done / total):.0f} % ({done:g}/{total:g})"

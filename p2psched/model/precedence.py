"""Which jobs go before others, and which tasks make way for them (ADR 0070).

Tags are for ever; fields are only appended, with defaults.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet

JOB_PRIORITY_MAX: Final = 1_000  # and not below the negative of it
RUNS_MS: Final = 10_000
RUNS_MS_MAX: Final = 7 * 86_400_000
# A task makes way so often and no more: it must come to its end some time.
PREEMPTIONS_MAX: Final = 20
WAYS_MAX: Final = 64  # grants in one word


class Precedence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a job stands to others."""

    priority: int = 0  # higher ones first
    preemptible: bool = False  # its tasks may be ended at a checkpoint for a higher one's
    runs_ms: int = RUNS_MS  # of a preemptible task: for so long after it began it is left alone

    def __post_init__(self) -> None:
        most = JOB_PRIORITY_MAX
        if type(self.priority) is not int or not -most <= self.priority <= most:
            raise ValueError(f"a priority is a number from -{most} to {most}, not {self.priority}")
        if type(self.runs_ms) is not int or not 0 <= self.runs_ms <= RUNS_MS_MAX:
            raise ValueError("a task is left alone for 0 s to 7 days after it began")


class PrecedenceView(msgspec.Struct, frozen=True, array_like=True):
    """How a job stands to others, for who looks at it."""

    priority: int = 0
    preemptible: bool = False
    runs_ms: int = 0
    preempted: int = 0  # attempts that were ended for tasks of higher jobs


class Way(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of what an owner has under a grant."""

    job: JobId
    grant: int
    count: int  # tasks that run, at most


class MakeWay(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=167):
    """From the coordinator to an owner: tasks of this job wait for a slot, and no peer has one. End
    so many of these. Advice only."""

    job: JobId
    priority: int
    ways: tuple[Way, ...]
    unbegun: bool = False  # and give back what you have not begun of jobs with a lower priority


class Preempted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=104):
    """`peer` has ended these tasks so that one of job `by` may run, and gives them back. A
    `GivenBack` follows."""

    job: JobId
    grant: int
    peer: PeerId
    tasks: TaskSet
    by: JobId

"""Work that could run and does not: what a peer says when it finds that of itself (ADR 0055).

Tags are for ever; fields are only appended, with defaults.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet

STALL_MS: Final = 5_000  # of nothing, before that is a fault
STALL_MS_MIN: Final = 500


class Fault(enum.StrEnum):
    """What does not go on."""

    QUEUE = "queue"  # tasks wait at their owner, which has a free slot
    EXECUTOR = "executor"  # what was handed over for a free slot has not begun
    GRANT = "grant"  # tasks are this peer's, which does not know them
    PLACEMENT = "placement"  # tasks wait for an owner, and a peer has nothing to do


class Stall(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A peer has found that of itself, and what it does about it."""

    peer: PeerId
    fault: str
    step: int  # of what heals it, from 1
    note: str  # for people


class Stalled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=87):
    """These tasks could have run, and did not. Nothing changes by it."""

    job: JobId
    peer: PeerId  # which found that of itself
    tasks: TaskSet
    fault: str
    step: int
    note: str


class StallStatus(msgspec.Struct, frozen=True, array_like=True):
    """Of a peer, since its process started."""

    found: int = 0
    healed: int = 0  # of these; the others last, or what did not go on was cancelled
    now: tuple[str, ...] = ()  # what does not go on, and what is done about it
    waits: tuple[str, ...] = ()  # why work waits here that could seem stuck: as it should

"""Why a task is where it is: what a client asks, and what whoever decided remembers of it.

Tags are for ever; fields are only appended, with defaults.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet

WallOf = Callable[[int], int]  # what a wall clock said when a process read so many ms


class ExplainTask(msgspec.Struct, frozen=True, array_like=True, tag=118):
    """Where a task stands and why. The peer that is asked asks all others."""

    job: JobId
    index: int


class DecisionsOf(msgspec.Struct, frozen=True, array_like=True, tag=119):
    """One peer to another: what you decided about a task, as far as you remember it."""

    job: JobId
    index: int


class Considered(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A peer as whoever decided saw it."""

    peer: PeerId
    score: float  # by the policy: the least is best
    slots: int
    owned: int  # tasks, before this decision
    load_ms: int  # expected work of those
    given: int  # tasks, by this decision
    age_ms: int | None = None  # of what gossip said of it; None: it had said nothing
    fits: bool = True  # it has enough slots


class Decision(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What was decided about a task, newest first among others."""

    kind: str  # "placed", "moved", "stalled" or "backed up"
    by: PeerId
    chosen: PeerId
    tasks: TaskSet  # that went there together
    policy: str = ""
    note: str = ""  # what was unusual
    wall_ms: int = 0
    estimate_us: int = 0  # of one task
    considered: tuple[Considered, ...] = ()  # the best first
    left_out: int = 0  # further ones
    job: JobId | None = None  # of what stood still


class DecisionsTold(msgspec.Struct, frozen=True, array_like=True, tag=118):
    decisions: tuple[Decision, ...]


class Explained(msgspec.Struct, frozen=True, array_like=True, tag=119):
    """`decisions` are what somebody still remembers; the ledger's history knows all grants."""

    job: JobId
    index: int
    state: str
    owner: PeerId | None
    waits: str = ""  # why, if it does
    policy: str = ""  # that the job asked for
    decisions: tuple[Decision, ...] = ()  # newest first
    silent: tuple[PeerId, ...] = ()  # live peers that did not say what they remember
    steps_sunk: int = 0  # its ends, by rules with `demote`, have put it back so often
    steps_max: int = 0  # further ones don't
    stands_behind: int = 0  # the command before which all that was submitted comes first


ExplainCall = ExplainTask | DecisionsOf
ExplainAnswer = DecisionsTold | Explained

"""What goes into the scheduler's core and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from p2psched.core.feed import Say
from p2psched.core.owner import OwnerEffect
from p2psched.core.separation_effects import SeparationEffect, SeparationEvent
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Command, Envelope, Outcome, Stamped
from p2psched.model.execution import Committed, ExecutorEvent, Standing, Tending
from p2psched.model.feed_messages import FeedReport, FeedReported, Follow
from p2psched.model.ids import JobId, PeerId
from p2psched.model.load import Seen
from p2psched.model.raft import Membership
from p2psched.model.stalls import Fault
from p2psched.model.steal_messages import StealMessage
from p2psched.model.taskset import TaskSet

if TYPE_CHECKING:
    from p2psched.core.event_log import Happened

# --- events ---------------------------------------------------------------------------------------


class Began(msgspec.Struct, frozen=True):
    """The process is up: tell the ledger, until it knows."""

    now_ms: int


class Applied(msgspec.Struct, frozen=True):
    """The ledger committed entries."""

    now_ms: int
    batches: tuple[Committed, ...]


class Restored(msgspec.Struct, frozen=True):
    """The ledger begins, or goes on, from a snapshot (`core.snapshot`): what led to it is never
    told here."""

    now_ms: int
    state: bytes | memoryview


class CoordinatorChanged(msgspec.Struct, frozen=True):
    now_ms: int
    coordinator: PeerId | None
    is_self: bool


class Asked(msgspec.Struct, frozen=True):
    """A caller on this peer proposes a command; `Answered` with the same tag follows, or never
    if the ledger stays away."""

    now_ms: int
    tag: int
    command: Command


class GaveUp(msgspec.Struct, frozen=True):
    """The caller of `Asked` waits no longer."""

    now_ms: int
    tag: int


class Executed(msgspec.Struct, frozen=True):
    now_ms: int
    event: ExecutorEvent


class Copied(msgspec.Struct, frozen=True):
    """The answer to `CopyBlobs`: who has them now."""

    now_ms: int
    number: int
    blobs: tuple[ResultBlob, ...]


class Clocked(msgspec.Struct, frozen=True):
    """Time went on. `contacts`: on the coordinator, peer -> when it was last heard."""

    now_ms: int
    contacts: Mapping[PeerId, int]
    full: frozenset[PeerId] = frozenset()  # on the coordinator: peers whose disks are full
    group: Membership | None = None  # who holds the whole ledger; None: everybody
    is_led: bool = False  # the coordinator was heard lately
    removed: tuple[PeerId, ...] = ()  # members no more, which is committed; lately, oldest first
    seen: Mapping[PeerId, Seen] = {}  # what gossip says of the others: advice, maybe old or wrong
    shun: frozenset[PeerId] = frozenset()  # who gossip says should get nothing new: advice


class Watched(msgspec.Struct, frozen=True):
    """Once in a while: see whether something stands still."""

    now_ms: int
    standing: Standing  # of the executor, as of now


class Followed(msgspec.Struct, frozen=True):
    """A follower, another feeder, or who steals or is asked to give, says something."""

    now_ms: int
    sender: PeerId
    message: Follow | FeedReport | FeedReported | StealMessage


class Renewed(msgspec.Struct, frozen=True):
    """The answer to `RenewIncarnation`: the new number is on disk."""

    now_ms: int
    incarnation: int


class Leaving(msgspec.Struct, frozen=True):
    """The process is about to stop cleanly: give the tasks back now, not after a silence."""

    now_ms: int
    tag: int


class Round(msgspec.Struct, frozen=True):
    """End of a turn."""

    now_ms: int


SchedulerEvent = (
    Began
    | Applied
    | Restored
    | CoordinatorChanged
    | Asked
    | GaveUp
    | Executed
    | Copied
    | Clocked
    | Watched
    | Followed
    | Renewed
    | Leaving
    | Round
    | SeparationEvent
)

# --- effects --------------------------------------------------------------------------------------


class AppendToLedger(msgspec.Struct, frozen=True):
    envelopes: tuple[Envelope, ...]


class Store(msgspec.Struct, frozen=True):
    """Results and history of one entry to keep."""

    events: tuple[Stamped, ...]
    applied_index: int
    happened: Happened


class Answered(msgspec.Struct, frozen=True):
    tag: int
    outcome: Outcome


class RenewIncarnation(msgspec.Struct, frozen=True):
    """We were declared down and are not: take the next number, durably, and say `Renewed`."""


class Tend(msgspec.Struct, frozen=True):
    """These batches should have begun long ago: help the executor."""

    how: Tending
    batches: frozenset[int]


class Noticed(msgspec.Struct, frozen=True):
    """For the log: something stands still, or does no more."""

    what: str  # found, lasts or over
    fault: Fault
    step: int
    job: JobId | None
    tasks: TaskSet
    note: str


class YieldLead(msgspec.Struct, frozen=True):
    """We lead and are drained: let another voter lead, but none of these."""

    avoid: frozenset[PeerId]


SchedulerEffect = (
    OwnerEffect
    | AppendToLedger
    | Store
    | Answered
    | RenewIncarnation
    | YieldLead
    | Say
    | SeparationEffect
    | Tend
    | Noticed
)

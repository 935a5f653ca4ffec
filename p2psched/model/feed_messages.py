"""What a follower and the peer that feeds it say to each other, and what feeders tell the leader
(ADR 0034). Tags are for ever; fields are only appended, with defaults.
"""

from __future__ import annotations

import msgspec

from p2psched.model.commands import DrainMode, Grant, Outcome
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec
from p2psched.model.raft import Membership
from p2psched.model.taskset import TaskSet


class FedGrant(msgspec.Struct, frozen=True, array_like=True):
    """What a follower owns under one grant."""

    grant: Grant
    incarnation: int
    parts: tuple[tuple[int, TaskSet], ...]  # number of the attempt -> its tasks
    token: int = 0  # of the lock that they hold
    moves: int = 0  # from peer to peer since they were placed
    started: TaskSet = TaskSet()  # of its tasks, those that it may begin: see `once`
    stays: bool = False  # it began as a backup, and moves nowhere
    spared: TaskSet = TaskSet()  # of its tasks, those that make way for nobody any more


class FedJob(msgspec.Struct, frozen=True, array_like=True):
    """All that a follower owns of a job now. `spec` comes once, with the first of it."""

    job: JobId
    grants: tuple[FedGrant, ...]
    spec: JobSpec | None = None
    ended: bool = False
    unknown: tuple[tuple[Grant, TaskSet], ...] = ()  # its word still counts: see `once`


class Follow(msgspec.Struct, frozen=True, array_like=True, tag=65):
    """A follower asks to be fed, and goes on to say that it is there. A new `number` begins anew,
    with all of the follower's part; `jobs` are those whose specs it has then."""

    number: int
    turn: int  # the last `Feed` of this number that came
    cursor: int  # the ledger index that the follower has seen, from whomever
    jobs: tuple[JobId, ...] = ()


class Feed(msgspec.Struct, frozen=True, array_like=True, tag=66):
    """What concerns one follower, as of a ledger index. `turn` counts from 1 in each number,
    without gaps. `whole`: from here on the part is told anew, and what is not told until there is
    no `more` is gone."""

    number: int
    turn: int
    index: int
    stamp_ms: int  # of the ledger, there
    incarnation: int  # of the follower, as the ledger knows it; 0: not yet
    live: bool
    jobs: tuple[FedJob, ...] = ()
    outcomes: tuple[tuple[int, Outcome], ...] = ()  # request -> what came of the proposal
    whole: bool = False
    more: bool = False
    group: Membership | None = None  # who holds the whole ledger, if that is news
    leader: PeerId | None = None
    drain: DrainMode = DrainMode.OFF  # of the follower
    short: bool = False  # too few of those that hold the whole ledger are up
    level: int = 0  # of features that the cluster uses
    pulls: bool = False  # tasks wait that somebody has to ask the leader for
    shut: tuple[PeerId, ...] = ()  # in quarantine, as who feeds sees it


class FeedElsewhere(msgspec.Struct, frozen=True, array_like=True, tag=67):
    """The answer of who does not feed: it leads and others could, or knows no leader."""

    number: int
    group: Membership
    leader: PeerId | None


class FeedReport(msgspec.Struct, frozen=True, array_like=True, tag=68):
    """A feeder tells the leader whom it hears: what changed since `base`, the last report that the
    leader has confirmed (0: everything). Without changes it only says that all are still there."""

    number: int
    base: int
    came: tuple[PeerId, ...] = ()
    gone: tuple[PeerId, ...] = ()


class FeedReported(msgspec.Struct, frozen=True, array_like=True, tag=69):
    """The leader has this report; 0: it has none, and wants all."""

    number: int


FeedMessage = Follow | Feed | FeedElsewhere | FeedReport | FeedReported


# --- calls ----------------------------------------------------------------------------------------


class Following(msgspec.Struct, frozen=True, array_like=True, tag=65):
    """The answer to a `Join` that may follow: enough peers hold the whole ledger, these."""

    group: Membership
    leader: PeerId | None


class KeepBlobs(msgspec.Struct, frozen=True, array_like=True, tag=66):
    """A follower asks a holder of the whole ledger which of its blobs it has reason to keep."""

    peer: PeerId
    digests: tuple[bytes, ...]


class KeptBlobs(msgspec.Struct, frozen=True, array_like=True, tag=67):
    digests: tuple[bytes, ...]

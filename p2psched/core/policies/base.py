"""What a placement policy is given, and what it says (ADR 0052).

A policy is a pure function of what is asked, the peers that fit, and notes of its own: how many of
the tasks each peer is given now. What it gives nobody waits, and is asked for again. Ownership is
decided by the `Place` that commits, so a policy may be wrong and do no more harm than to be slow.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from p2psched.core.placement import Candidate
from p2psched.model.ids import JobId, PeerId
from p2psched.model.load import LoadReport

PUSH_MAX: Final = 1_024  # tasks of one job in one round, by a policy that binds early
EARLY_MAX: Final = 4_096  # tasks that a peer owns, beyond which nothing more is pushed to it
SHARE_WHOLE: Final = 1_000  # per mille

Shares = list[tuple[Candidate, int]]


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Tasks of one job that may be placed now."""

    job: JobId
    count: int
    estimate_us: int  # of one of them
    cpus: int
    owned_here: Mapping[PeerId, int]  # peer -> tasks of this job that it owns
    kind: int = 0  # 32 bits that stand for what they run
    blobs: tuple[tuple[int, int], ...] = ()  # what they need of large data: 32 bits, and bytes
    most: Mapping[PeerId, int] = {}  # peers that may own only so many more of them
    measured: Mapping[PeerId, Measured] = {}  # by this coordinator
    now_ms: int = 0  # in ledger time
    is_guess: bool = False  # `estimate_us` is of other jobs
    whole: bool = False  # all slots are there for it, also where others need the machine

    def room(self, peer: Candidate) -> int:
        """What may be pushed to it."""
        return min(self.most.get(peer.peer, PUSH_MAX), EARLY_MAX - peer.owned)


class Measured(msgspec.Struct, frozen=True, gc=False):
    """Of tasks that a peer ran, by this coordinator's view of the ledger."""

    response_ms: float  # from grant to result
    at_ms: int  # when the last one ended


class Notes:
    """What a policy remembers from one call to the next; of one coordinator, lost with its lead."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.last = PeerId("")
        self.given: dict[PeerId, int] = {}
        self.tried: dict[tuple[int, PeerId], int] = {}  # kind of work, peer -> when, in ms


class Policy(Protocol):
    """`share` gives out at most `ask.count` tasks; `score` is what it goes by, the least is best,
    for people who ask why."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def is_late(self) -> bool:
        """A task is decided late: peers get no more than keeps them busy for a second."""
        ...

    def share(self, ask: Ask, peers: Sequence[Candidate], notes: Notes) -> Shares: ...
    def score(self, ask: Ask, peer: Candidate) -> float: ...


Key = Callable[[Candidate, int], tuple[float, ...] | float]


def fill(ask: Ask, peers: Sequence[Candidate], key: Key) -> Shares:
    """Each task to the peer whose key is least, given what the tasks before it have made of it: the
    key is of a peer and of how many more it has been given. Ties go by id."""
    count = min(ask.count, PUSH_MAX)
    given: dict[PeerId, int] = {}
    heap = [
        (key(peer, 0), peer.peer, number) for number, peer in enumerate(peers) if ask.room(peer) > 0
    ]
    heapq.heapify(heap)
    while count and heap:
        _, name, number = heap[0]
        had = given[name] = given.get(name, 0) + 1
        count -= 1
        if had < ask.room(peers[number]):
            heapq.heapreplace(heap, (key(peers[number], had), name, number))
        else:
            heapq.heappop(heap)
    return [(peer, given[peer.peer]) for peer in peers if peer.peer in given]


def report_of(peer: Candidate) -> LoadReport | None:
    """What it said of itself, if it did."""
    return peer.seen.load if peer.seen is not None else None


def mean_us(peer: Candidate, kind: int) -> int:
    """What tasks of this kind take there, as it has measured; 0: it has not."""
    report = report_of(peer)
    if report is not None and kind:
        for speed in report.speeds:
            if speed.kind == kind:
                return speed.mean_us
    return 0

"""Where tasks go: a pure function over what the ledger says of each peer's load.

Guided self-scheduling (Polychronopoulos and Kuck 1987): each slot is given a share of what is
left, so early grants are large and cheap and late ones small and even. A peer's backlog is bounded
in expected time, so that a task is decided late and a peer that joins finds work.
"""

from __future__ import annotations

import heapq
import operator
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core.jobs import Job
from p2psched.model.ids import PeerId
from p2psched.model.load import Seen
from p2psched.model.needs import AVERAGE_WEIGHT
from p2psched.model.taskset import TaskSet

BACKLOG_US: Final = 1_000_000  # expected work per slot that a peer owns ahead, at most
SHARES_PER_SLOT: Final = 2  # a slot is given 1/(2 x slots) of what is left
GRANT_US_MIN: Final = 20_000  # expected work worth a round of the ledger: less is not split further
NO_LIMITS: Final[Mapping[PeerId, int]] = {}

Busyness = tuple[float, bool, PeerId]  # expected work of a slot, is another peer, which


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A live peer as placement sees it."""

    peer: PeerId
    incarnation: int
    slots: int
    owned: int  # tasks, all jobs
    load_us: int  # expected work of those
    is_self: bool = False  # the coordinator: what it runs itself costs no message to start
    weight: int = AVERAGE_WEIGHT
    seen: Seen | None = None  # what gossip says of it: advice, maybe old or wrong
    asks: bool = False  # it has nothing to do, and has said so


def share_out(
    tasks: TaskSet,
    candidates: Sequence[Candidate],
    *,
    estimate_us: int,
    cpus: int,
    owned_here: Mapping[PeerId, int],
    slots: int | None = None,
) -> list[tuple[Candidate, TaskSet]]:
    """Split `tasks` of one job among peers that can run them now; what is in no share waits.

    `owned_here`: peer -> tasks of this job that it owns already. `slots`: of all peers that are
    large enough, if those that have no room are left out.
    The least loaded peer comes first; ties go to the coordinator itself, then by id, so equal views
    give equal shares.
    """
    if len(tasks) == 1:
        return _share_of_one(tasks, candidates, estimate_us, cpus, owned_here)
    counts = share_counts(
        *(len(tasks), candidates),
        estimate_us=estimate_us,
        cpus=cpus,
        owned_here=owned_here,
        slots=slots,
    )
    return cut(tasks, counts)


def cut(tasks: TaskSet, counts: Sequence[tuple[Candidate, int]]) -> list[tuple[Candidate, TaskSet]]:
    """The first tasks for the first peer, and so on."""
    shares = []
    for candidate, count in counts:
        share = tasks.take(count)
        tasks = tasks - share
        shares.append((candidate, share))
    return shares


def share_counts(
    count: int,
    candidates: Sequence[Candidate],
    *,
    estimate_us: int,
    cpus: int,
    owned_here: Mapping[PeerId, int],
    most: Mapping[PeerId, int] = NO_LIMITS,
    slots: int | None = None,
) -> list[tuple[Candidate, int]]:
    """How many each is given. `most`: peers that may own only so many more."""
    fitting = [c for c in candidates if c.slots >= cpus]
    if slots is None:
        slots = sum(c.slots for c in fitting)
    if not slots or not count:
        return []
    least = GRANT_US_MIN // estimate_us
    quota = quota_of(count, slots, estimate_us)
    rooms = {
        c.peer: room_in(c, quota, owned_here.get(c.peer, 0), estimate_us, cpus) for c in fitting
    }
    fitting = [c for c in fitting if rooms[c.peer] > 0]
    free = sum(c.slots for c in fitting)
    if free and quota < (worth := min(-(-count // free), least)):
        # The others are busy: too little is left to keep any of it for them.
        quota = worth
        for c in fitting:
            rooms[c.peer] = room_in(c, quota, owned_here.get(c.peer, 0), estimate_us, cpus)
    for peer, limit in most.items():
        rooms[peer] = min(rooms.get(peer, 0), limit)
    counts = {c.peer: 0 for c in fitting if rooms[c.peer] > 0}
    heap = [(*busyness(c), c) for c in fitting if c.peer in counts]
    heapq.heapify(heap)
    left = count
    while left and heap:
        load, is_other, peer, candidate = heapq.heappop(heap)
        given = min(left, quota, rooms[peer] - counts[peer])
        counts[peer] += given
        left -= given
        if counts[peer] < rooms[peer]:
            load += given * estimate_us * cpus / candidate.slots
            heapq.heappush(heap, (load, is_other, peer, candidate))
    return [(c, counts[c.peer]) for c in fitting if counts.get(c.peer)]


def quota_of(count: int, slots: int, estimate_us: int) -> int:
    """Tasks of a job that a slot may own, of so many that are left."""
    fair = -(-count // slots) if slots else 0
    return max(-(-fair // SHARES_PER_SLOT), min(fair, GRANT_US_MIN // estimate_us))


def _share_of_one(
    task: TaskSet,
    candidates: Sequence[Candidate],
    estimate_us: int,
    cpus: int,
    owned_here: Mapping[PeerId, int],
) -> list[tuple[Candidate, TaskSet]]:
    """As `share_out`, without its bookkeeping: very many jobs are one task."""
    chosen, least = None, None
    for candidate in candidates:
        if candidate.slots < cpus:
            continue
        load = busyness(candidate)
        if (least is None or load < least) and (
            room_in(candidate, 1, owned_here.get(candidate.peer, 0), estimate_us, cpus) > 0
        ):
            chosen, least = candidate, load
    return [] if chosen is None else [(chosen, task)]


def first_with_room(
    task: TaskSet, ranked: Iterable[Candidate], *, estimate_us: int, cpus: int
) -> list[tuple[Candidate, TaskSet]]:
    """As `share_out`, for the only task of a job; `ranked`: the least busy come first."""
    for c in ranked:
        if c.slots >= cpus and room_in(c, 1, 0, estimate_us, cpus) > 0:
            return [(c, task)]
    return []


def busyness(candidate: Candidate) -> Busyness:
    """Who has the least is given tasks first."""
    return candidate.load_us / candidate.slots, not candidate.is_self, candidate.peer


def room_in(candidate: Candidate, quota: int, owned_here: int, estimate_us: int, cpus: int) -> int:
    """How many more tasks this peer may own now: none before half of what it was given is done,
    so that a peer is given many tasks seldom, not one task often."""
    slots = candidate.slots
    free = slots // cpus - candidate.owned  # a free slot is never left without a task
    if candidate.owned > 2 * slots and (
        owned_here * 2 > quota * slots or candidate.load_us * 2 > slots * BACKLOG_US
    ):
        return 0
    ahead = (slots * BACKLOG_US - candidate.load_us) // (estimate_us * cpus)
    return min(max(ahead, free), quota * slots - owned_here)


def has_room(candidate: Candidate) -> bool:
    """True if the peer may own more of some task."""
    return candidate.load_us < candidate.slots * BACKLOG_US or candidate.owned < candidate.slots


def with_load(
    candidates: list[Candidate], chosen: Candidate, count: int, cost_us: int
) -> list[Candidate]:
    """The view after a share was given away, so that one round doesn't flood one peer.
    `candidates` are in the order of their ids."""
    after = candidates.copy()
    place = bisect_left(after, chosen.peer, key=operator.attrgetter("peer"))
    if place < len(after) and (c := after[place]).peer == chosen.peer:
        after[place] = msgspec.structs.replace(
            c, owned=c.owned + count, load_us=c.load_us + count * cost_us
        )
    return after


def owned_by_peer(job: Job) -> dict[PeerId, int]:
    owned: dict[PeerId, int] = {}
    for held in (*job.grants.values(), *job.backups.values()):
        owned[held.peer] = owned.get(held.peer, 0) + len(held.tasks)
    return owned

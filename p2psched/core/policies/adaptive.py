"""Late, and to whoever is expected to end first: the policy of a cluster that is told nothing.

While nothing is known of the peers but what the ledger says they are shares as `placement` cuts
them. What gossip says leans that: how long this kind of task takes on each, how much of a machine
others use, and what data has to travel. All of it is old by some hundred milliseconds, so it
changes the sizes of shares and their order, and who gets none: a peer on which the task would end
after all the work there is could have ended elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core.placement import (
    GRANT_US_MIN,
    SHARES_PER_SLOT,
    Candidate,
    room_in,
    share_counts,
)
from p2psched.core.policies.base import Ask, Notes, Shares, report_of
from p2psched.core.policies.speeds import USUAL, Speeds, speeds_of
from p2psched.core.spare import usable
from p2psched.model.ids import PeerId

LINK_BYTES_PER_US: Final = 100  # that data is expected to travel with
PATIENCE: Final = 1.1  # times the time until all is done: who would take longer gets nothing
Blobs = tuple[tuple[int, int], ...]


class Lean(msgspec.Struct, frozen=True, gc=False):
    """What gossip makes of a peer."""

    speed: int  # at this kind of task, per mille of what is usual
    general: int  # at what waits there already
    extra_us: int  # before the first task of this job can begin
    spare: int = USUAL  # of its slots, while others compute there, too


USUALLY: Final = Lean(USUAL, USUAL, 0)


class Leans(msgspec.Struct, frozen=True, gc=False):
    """Of all peers, for one kind of task. Empty if nothing is known that makes a difference."""

    of: Mapping[PeerId, Lean]
    estimate_us: int = 0  # of a task at the usual speed; 0: nobody has measured any


class Adaptive:
    name = "adaptive"
    summary = "late, to whoever should end it first"
    is_late = True

    def share(self, ask: Ask, peers: Sequence[Candidate], _notes: Notes) -> Shares:
        leans = leans_of(ask.kind, ask.blobs, peers, speeds_of(peers))
        if leans.of:
            return share_leaning(ask, peers, leans)
        return share_counts(
            ask.count,
            peers,
            estimate_us=ask.estimate_us,
            cpus=ask.cpus,
            owned_here=ask.owned_here,
            most=ask.most,
        )

    def score(self, ask: Ask, peer: Candidate) -> float:
        """Milliseconds until a task that it is given now is expected to have ended there, if this
        peer is an average one."""
        report = report_of(peer)
        mean_us = next((s.mean_us for s in report.speeds if s.kind == ask.kind), 0) if report else 0
        extra_us = _extra_us(peer, ask.blobs)
        return (peer.load_us / peer.slots + (mean_us or ask.estimate_us) + extra_us) / 1000


def leans_of(kind: int, blobs: Blobs, peers: Sequence[Candidate], speeds: Speeds) -> Leans:
    found = {}
    is_level = True
    for peer in peers:
        name = peer.peer
        lean = Lean(
            *(speeds.of(name, kind), speeds.general_of(name), _extra_us(peer, blobs)),
            spare=speeds.left.get(name, USUAL),
        )
        found[name] = lean
        is_level = is_level and lean.speed == lean.general == USUAL and not lean.extra_us
    return Leans({} if is_level else found, speeds.usual_us.get(kind, 0))


def _extra_us(peer: Candidate, blobs: Blobs) -> int:
    if not blobs:
        return 0
    report = report_of(peer)
    warm = report.warm if report is not None else ()
    return sum(size for key, size in blobs if key not in warm) // LINK_BYTES_PER_US


def _finish_us(ask: Ask, peer: Candidate, lean: Lean, count: int) -> float:
    """When the last of so many tasks ends."""
    before_us = peer.load_us / peer.slots * USUAL / lean.general
    each_us = ask.estimate_us * USUAL / lean.speed
    return before_us + lean.extra_us + max(each_us, each_us * ask.cpus * count / peer.slots)


def share_leaning(ask: Ask, peers: Sequence[Candidate], known: Leans) -> Shares:
    """As `placement.share_counts`, with each slot worth what it can do."""
    if ask.is_guess and known.estimate_us:
        ask = msgspec.structs.replace(ask, estimate_us=known.estimate_us)
    leans = {peer.peer: known.of.get(peer.peer, USUALLY) for peer in peers}
    fitting = [peer for peer in peers if peer.slots >= ask.cpus]
    power = sum([peer.slots * leans[peer.peer].speed for peer in fitting]) / USUAL
    if not power or not ask.count:
        return []
    return (lean_one if ask.count == 1 else lean_many)(ask, fitting, leans, power)


def lean_one(
    ask: Ask, fitting: Sequence[Candidate], leans: Mapping[PeerId, Lean], power: float
) -> Shares:
    """As `lean_many`, without its bookkeeping: very many jobs are one task."""
    ranked = [
        (_finish_us(ask, peer, leans[peer.peer], 1), not peer.is_self, peer.peer, number)
        for number, peer in enumerate(fitting)
    ]
    ranked.sort()
    latest_us = ranked[0][0]  # who is first is in time
    for first_us, _, _, number in ranked:
        if first_us > latest_us:
            latest_us = _latest_us(ask, fitting, leans, power)
            if first_us > latest_us:
                break
        peer = fitting[number]
        if _room(ask, peer, leans[peer.peer], _quota(ask, power))[1] > 0:
            return [(peer, 1)]
    return []


def lean_many(
    ask: Ask, fitting: Sequence[Candidate], leans: Mapping[PeerId, Lean], power: float
) -> Shares:
    latest_us, quota = _latest_us(ask, fitting, leans, power), _quota(ask, power)
    rooms: dict[PeerId, int] = {}
    quotas: dict[PeerId, int] = {}
    heap = []
    for number, peer in enumerate(fitting):
        first_us = _finish_us(ask, peer, leans[peer.peer], 1)
        if first_us > latest_us:
            continue
        quotas[peer.peer], rooms[peer.peer] = _room(ask, peer, leans[peer.peer], quota)
        if rooms[peer.peer] > 0:
            heap.append((first_us, not peer.is_self, peer.peer, number))
    heapq.heapify(heap)
    given: dict[PeerId, int] = {}
    left = ask.count
    while left and heap:
        _, is_other, name, number = heapq.heappop(heap)
        peer, had = fitting[number], given.get(name, 0)
        more = min(left, quotas[name], rooms[name] - had)
        given[name] = had + more
        left -= more
        if given[name] < rooms[name]:
            finish_us = _finish_us(ask, peer, leans[name], given[name] + 1)
            if finish_us <= latest_us:
                heapq.heappush(heap, (finish_us, is_other, name, number))
    return [(peer, given[peer.peer]) for peer in fitting if peer.peer in given]


def _quota(ask: Ask, power: float) -> float:
    fair = ask.count / power
    return max(fair / SHARES_PER_SLOT, min(fair, GRANT_US_MIN / ask.estimate_us))


def _room(ask: Ask, peer: Candidate, lean: Lean, quota: float) -> tuple[int, int]:
    """How many tasks it is given at a time, and how many in all."""
    # Tasks that only wait would hide from its slots that others need the machine.
    share = USUAL if ask.whole else lean.spare
    slowed = msgspec.structs.replace(
        peer,
        slots=usable(peer.slots, share, cpus=ask.cpus),
        load_us=peer.load_us * USUAL // lean.general,
    )
    each_us = max(1, ask.estimate_us * USUAL // lean.speed)
    own = max(1, round(quota * lean.speed / USUAL))
    here = ask.owned_here.get(peer.peer, 0)
    room = room_in(slowed, own, here, each_us, ask.cpus)
    return own, min(room, ask.most.get(peer.peer, room))


def _latest_us(
    ask: Ask, peers: Sequence[Candidate], leans: Mapping[PeerId, Lean], power: float
) -> float:
    """When all of it would be done if everybody helped, or one task where it ends first."""
    work_us = ask.count * ask.estimate_us * ask.cpus
    loads_us = sum(
        peer.load_us * leans[peer.peer].speed / leans[peer.peer].general for peer in peers
    )
    first_us = min(_finish_us(ask, peer, leans[peer.peer], 1) for peer in peers)
    return max((loads_us + work_us) / power, first_us) * PATIENCE

"""Who may be given tasks, as placement sees them, kept up to date by what changes: a round of the
coordinator costs as much as has happened since the last one, and not as much as there are peers.

The ledger's state notes here whose rows change while this peer coordinates (`ownings`). What others
say of peers (gossip, full disks, quarantine) is compared with what was said last time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import Final, NamedTuple

from p2psched.core.jobs import Job
from p2psched.core.ownings import Ownings
from p2psched.core.placement import (
    BACKLOG_US,
    Busyness,
    Candidate,
    busyness,
    first_with_room,
    has_room,
    quota_of,
    room_in,
    share_out,
)
from p2psched.core.state import LedgerState
from p2psched.model.commands import Command
from p2psched.model.ids import JobId, PeerId
from p2psched.model.load import Seen
from p2psched.model.taskset import TaskSet

WATCHES_MAX: Final = 8  # jobs; of more the one that was looked at longest ago is reckoned anew
_NOBODY: Final[frozenset[PeerId]] = frozenset()


class Views(NamedTuple):
    """What is said of peers beside the ledger."""

    closed: frozenset[PeerId]  # they get nothing
    probed: frozenset[PeerId]  # they get one task
    asking: frozenset[PeerId]
    seen: Mapping[PeerId, Seen]


class Lineup:
    def __init__(self, me: PeerId, state: LedgerState) -> None:
        self._me = me
        self._state = state
        self._ownings: Ownings | None = None
        self._views = Views(_NOBODY, _NOBODY, _NOBODY, {})
        self._ids: list[PeerId] = []  # of `_found`
        self._found: list[Candidate] = []  # never changed, but replaced
        self._ranks: list[Busyness] = []  # of those that have room, the least first
        self._sizes: dict[PeerId, int] = {}  # slots of all that take tasks, candidates or not
        self.largest = 0  # of those
        self._watches: dict[JobId, _Watch] = {}

    def begin(self) -> None:
        self._ownings = self._state.ownings = Ownings(
            self._state.peers, self._state.jobs_with_grants()
        )
        self._ids, self._found, self._ranks = [], [], []
        self._sizes, self.largest = {}, 0
        self._watches.clear()

    def end(self) -> None:
        """Somebody else coordinates."""
        self._ownings = self._state.ownings = None
        self._watches.clear()

    def look(self, views: Views) -> list[Candidate]:
        """All that may be given tasks, by their ids. Whoever changes the list changes a copy."""
        assert self._ownings is not None, "this peer coordinates"
        changed = self._ownings.touched | self._said_anew(views)
        self._ownings.touched = {}
        self._views = views
        if changed:
            self._found = self._found.copy()
            for peer in changed:
                self._take_up(peer)
            for watch in self._watches.values():
                watch.stale |= changed
        return self._found

    def is_open(self, candidates: list[Candidate]) -> bool:
        """True if some of them may own more of some task."""
        if candidates is self._found:
            return bool(self._ranks)
        return any(map(has_room, candidates))

    def share_out(
        self,
        job: Job | None,
        tasks: TaskSet,
        candidates: list[Candidate],
        *,
        estimate_us: int,
        cpus: int,
    ) -> list[tuple[Candidate, TaskSet]]:
        """As `placement.share_out`, which would look at all of them. `job`: None if it is not in
        the ledger yet."""
        assert self._ownings is not None, "this peer coordinates"
        owned_here = self._ownings.of(job.id) if job is not None else {}
        near, slots = candidates, None
        if candidates is self._found:  # nothing was given away in this round
            if job is not None:
                near, slots = self._near(job.id, len(tasks), estimate_us, cpus)
            elif len(tasks) == 1:
                ranked = (c for rank in self._ranks if (c := self._find(rank[2])))
                return first_with_room(tasks, ranked, estimate_us=estimate_us, cpus=cpus)
        return share_out(
            *(tasks, near), estimate_us=estimate_us, cpus=cpus, owned_here=owned_here, slots=slots
        )

    def _near(
        self, job: JobId, count: int, estimate_us: int, cpus: int
    ) -> tuple[list[Candidate], int]:
        """Those that might have room for tasks of this job, and the slots of all."""
        assert self._ownings is not None
        watch = self._watches.pop(job, None)
        if watch is None or not watch.holds(count, estimate_us):
            watch = _Watch(self._found, count, estimate_us, cpus)
        self._watches[job] = watch
        if len(self._watches) > WATCHES_MAX:
            del self._watches[next(iter(self._watches))]
        owned_here = self._ownings.of(job)
        for peer in watch.stale:
            watch.look_at(peer, self._find(peer), owned_here.get(peer, 0))
        watch.stale = {}
        return [c for peer in sorted(watch.might) if (c := self._find(peer))], watch.slots

    def _find(self, peer: PeerId) -> Candidate | None:
        place = bisect_left(self._ids, peer)
        is_there = place < len(self._ids) and self._ids[place] == peer
        return self._found[place] if is_there else None

    def _said_anew(self, views: Views) -> dict[PeerId, None]:
        """Of whom something else is said than before."""
        before = self._views
        peers = dict.fromkeys(before.closed ^ views.closed)
        peers |= dict.fromkeys(before.probed ^ views.probed)
        peers |= dict.fromkeys(before.asking ^ views.asking)
        if views.seen is not before.seen:
            for peer in {**before.seen, **views.seen}:
                if before.seen.get(peer) != views.seen.get(peer):
                    peers[peer] = None
        return peers

    def _take_up(self, peer: PeerId) -> None:
        place = bisect_left(self._ids, peer)
        is_there = place < len(self._ids) and self._ids[place] == peer
        before = self._found[place] if is_there else None
        now = self._candidate(peer)
        if before == now:
            return
        if before is not None and has_room(before):
            del self._ranks[bisect_left(self._ranks, busyness(before))]
        if now is not None and has_room(now):
            insort(self._ranks, busyness(now))
        if before is not None and now is not None:
            self._found[place] = now
        elif now is not None:
            self._ids.insert(place, peer)
            self._found.insert(place, now)
        elif before is not None:
            del self._ids[place], self._found[place]
        if (before.slots if before else 0) != (now.slots if now else 0):
            self._watches.clear()  # the fair share of a slot is another one

    def _candidate(self, peer: PeerId) -> Candidate | None:
        views, row = self._views, self._state.peers.get(peer)
        slots = row.info.slots if row is not None and row.takes_tasks else 0
        if slots != self._sizes.get(peer, 0):
            self._sizes[peer] = slots
            if not slots:
                del self._sizes[peer]
            self.largest = max(self._sizes.values(), default=0)
        if row is None or not slots or row.suspects or peer in views.closed:
            return None
        if peer in views.probed:  # room for one; it is shut, so it does not ask
            life = row.info.incarnation
            return Candidate(peer, life, 1, row.owned, BACKLOG_US, asks=not row.owned)
        return Candidate(
            *(peer, row.info.incarnation, slots, row.owned, row.load_us),
            is_self=peer == self._me,
            weight=row.offers.weight,
            seen=views.seen.get(peer),
            asks=peer in views.asking,
        )


class _Watch:
    """Who might have room for tasks of one job. Reckoned for a somewhat shorter estimate than that
    of now: as long as neither that nor the share of a slot passes those limits, whoever had no room
    and has not changed has none."""

    def __init__(
        self, candidates: list[Candidate], count: int, estimate_us: int, cpus: int
    ) -> None:
        self._cpus = cpus
        self._estimate_us = max(1, estimate_us * 7 // 8)
        self.slots = sum(c.slots for c in candidates if c.slots >= cpus)
        self._quota = quota_of(count, self.slots, self._estimate_us)
        self.might: dict[PeerId, None] = {}
        self.stale = dict.fromkeys(c.peer for c in candidates)  # to be looked at again

    def holds(self, count: int, estimate_us: int) -> bool:
        if estimate_us < self._estimate_us:
            return False
        return quota_of(count, self.slots, estimate_us) <= self._quota

    def look_at(self, peer: PeerId, c: Candidate | None, owned_here: int) -> None:
        self.might.pop(peer, None)
        if c is not None and c.slots >= self._cpus:
            room = room_in(c, self._quota, owned_here, self._estimate_us, self._cpus)
            if room > 0:
                self.might[peer] = None


class Round:
    """One round of placements, as far as it is."""

    def __init__(self, commands: list[Command], candidates: list[Candidate]) -> None:
        self.commands = commands
        self.candidates = self.everyone = candidates
        # The job that got nothing, and from whom: it keeps the least busy of them for itself.
        self.waits: tuple[list[Candidate], Job] | None = None
        self.begun = False

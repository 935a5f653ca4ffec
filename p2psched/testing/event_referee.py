"""What must hold of public events and of the past: every peer tells the same events at the same
places, and what a snapshot and the log on its disk lead to is its state, byte by byte (S33).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from p2psched.core.event_log import Happened, records_of
from p2psched.core.snapshot import encode_machine
from p2psched.model.errors import Unavailable
from p2psched.model.event_messages import EventFilter, EventRecord, Place
from p2psched.peer.replay import HistoryGone, Replay, Tail
from p2psched.testing.promises import demand
from p2psched.testing.sim_peer import SimPeer

ANY_LEVEL: Final = 1 << 30  # it reads what whatever version wrote
_ALL: Final = EventFilter(values=True)


class EventReferee:
    def __init__(self) -> None:
        self.said: dict[int, list[EventRecord]] = {}  # by entry
        self._first: dict[int, Happened] = {}  # by entry, what the first peer made these of

    def on_happened(self, peer: SimPeer, happened: Happened) -> None:
        index = happened.batch.index
        if self._first.setdefault(index, happened) == happened and index in self.said:
            return  # a function of this, and of nothing else
        records = records_of(happened)
        known = self.said.setdefault(index, records)
        demand(known == records, "P14", f"peer {peer.number} tells other events of entry {index}")
        places = [record.place for record in records]
        in_order = [Place(index, position) for position in range(len(places))]
        demand(places == in_order, "P14", f"events of entry {index} stand at {places}")

    def check_end(self, peers: Sequence[SimPeer], rng: random.Random) -> int:
        """How many peers could be rebuilt; what a damaged disk has lost nobody demands."""
        rebuilt = 0
        for peer in peers:
            if peer.is_rotten or peer.is_hurt:
                continue
            rebuilt += 1
            oldest = self._oldest(peer)
            now = peer.scheduler.machine.applied_index
            self._rebuild(peer, oldest, rng)
            if now > oldest:  # from another snapshot, maybe
                self._rebuild(peer, rng.randint(oldest, now), rng)
        return rebuilt

    def _oldest(self, peer: SimPeer) -> int:
        try:
            return self._replay(peer, 0).index
        except HistoryGone as gone:
            return gone.oldest - 1

    def _replay(self, peer: SimPeer, behind: int) -> Replay:
        try:
            return Replay(peer.disk, _tail(peer), behind, known_level=ANY_LEVEL)
        except (Unavailable, FileNotFoundError) as error:
            raise AssertionError(f"P14: peer {peer.number} has no past: {error}") from error

    def _rebuild(self, peer: SimPeer, behind: int, rng: random.Random) -> None:
        """Fold all that follows entry `behind`, page by page, as a reader does."""
        machine = peer.scheduler.machine
        replay, tail = self._replay(peer, behind), _tail(peer)
        start = Place(behind + 1)
        told: list[EventRecord] = []
        while replay.index < machine.applied_index or start < Place(machine.applied_index + 1):
            page = replay.read(tail, start, _ALL, rng.randint(1, 20))
            told += page.events
            start = page.following
        where = f"behind entry {behind} on peer {peer.number}"
        expected = [
            record for index, held in sorted(self.said.items()) if index > behind for record in held
        ]
        demand(told == expected, "P14", f"{len(told)} events of {len(expected)} {where}")
        in_order = all(one.place < two.place for one, two in pairwise(told))
        demand(in_order, "P14", f"events out of order {where}")
        same = encode_machine(replay.machine) == encode_machine(machine)
        demand(same, "P14", f"another state is rebuilt {where}")


def _tail(peer: SimPeer) -> Tail:
    raft = peer.engine.raft
    base = raft.base_index
    entries = raft.entries(base + 1, peer.engine.delivered + 1)
    return Tail(base, raft.term_at(base) or 0, entries)

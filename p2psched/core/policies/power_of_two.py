"""Of two peers that are drawn, the one with less to do (Mitzenmacher 2001): whoever decides by a
view that is old, as others do, doesn't choose the same peer as they."""

from __future__ import annotations

from collections.abc import Sequence

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import PUSH_MAX, Ask, Notes, Shares
from p2psched.core.policies.queue_length import waiting
from p2psched.model.ids import PeerId


class PowerOfTwo:
    name = "power-of-two"
    summary = "of two drawn the one with less to do"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], notes: Notes) -> Shares:
        given: dict[PeerId, int] = {}
        open_ = [peer for peer in peers if ask.room(peer) > 0]
        for _ in range(min(ask.count, PUSH_MAX)):
            if not open_:
                break
            drawn = notes.rng.sample(open_, min(2, len(open_)))
            chosen = min(drawn, key=lambda peer: waiting(peer, given.get(peer.peer, 0)))
            had = given[chosen.peer] = given.get(chosen.peer, 0) + 1
            if had >= ask.room(chosen):
                open_.remove(chosen)
        return [(peer, given[peer.peer]) for peer in peers if peer.peer in given]

    def score(self, _ask: Ask, peer: Candidate) -> float:
        return waiting(peer, 0)[0]

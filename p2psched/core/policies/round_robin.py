"""Each peer in turn."""

from __future__ import annotations

from collections.abc import Sequence

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import PUSH_MAX, Ask, Notes, Shares
from p2psched.model.ids import PeerId


class RoundRobin:
    name = "round-robin"
    summary = "each peer in turn"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], notes: Notes) -> Shares:
        """The turn goes on behind whoever had the last, also if that peer is gone."""
        left = min(ask.count, PUSH_MAX)
        given: dict[PeerId, int] = {}
        turn = [c for c in peers if c.peer > notes.last] + [
            c for c in peers if c.peer <= notes.last
        ]
        while left:
            turn = [c for c in turn if given.get(c.peer, 0) < ask.room(c)]
            if not turn:
                break
            # As many whole turns as all of them have room for, then what is left of one.
            whole = min(left // len(turn), *(ask.room(c) - given.get(c.peer, 0) for c in turn))
            for c in turn[: None if whole else left]:
                given[c.peer] = given.get(c.peer, 0) + max(1, whole)
                left -= max(1, whole)
                notes.last = c.peer
        return [(c, given[c.peer]) for c in peers if c.peer in given]

    def score(self, _ask: Ask, _peer: Candidate) -> float:
        return 0.0

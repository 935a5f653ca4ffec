"""The shortest queue."""

from __future__ import annotations

from collections.abc import Sequence

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import Ask, Notes, Shares, fill


def waiting(peer: Candidate, given: int) -> tuple[float, ...]:
    """Tasks that wait there for each slot, then how full its slots are."""
    owned = peer.owned + given
    return max(0, owned - peer.slots) / peer.slots, owned / peer.slots


class QueueLength:
    name = "queue-length"
    summary = "the peer with the shortest queue"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], _notes: Notes) -> Shares:
        return fill(ask, peers, waiting)

    def score(self, _ask: Ask, peer: Candidate) -> float:
        return waiting(peer, 0)[0]

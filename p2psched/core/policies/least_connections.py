"""The peer with the fewest tasks in flight."""

from __future__ import annotations

from collections.abc import Sequence

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import Ask, Notes, Shares, fill


class LeastConnections:
    name = "least-connections"
    summary = "the peer that owns the fewest tasks"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], _notes: Notes) -> Shares:
        return fill(ask, peers, lambda peer, given: peer.owned + given)

    def score(self, _ask: Ask, peer: Candidate) -> float:
        return peer.owned

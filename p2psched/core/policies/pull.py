"""Nobody is given anything: peers with nothing to do ask (reverse scheduling, ADR 0051)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psched.core.placement import SHARES_PER_SLOT, Candidate
from p2psched.core.policies.base import PUSH_MAX, Ask, Notes, Shares

PULLED_US: Final = 500_000  # a slot: expected work that one answer brings, at most


class Pull:
    name = "pull"
    summary = "nobody, until a peer asks for work"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], _notes: Notes) -> Shares:
        """In shrinking pieces, as there are slots that may come and ask, too."""
        slots = sum(c.slots for c in peers)
        left = min(ask.count, PUSH_MAX)
        shares: Shares = []
        for c in peers:
            if not c.asks or left <= 0:
                continue
            at_a_time = max(1, c.slots // ask.cpus)
            fair = -(-ask.count * c.slots // (slots * SHARES_PER_SLOT))
            ahead = at_a_time * PULLED_US // ask.estimate_us
            count = min(left, ask.room(c), max(at_a_time, min(fair, ahead)))
            if count > 0:
                shares.append((c, count))
                left -= count
        return shares

    def score(self, _ask: Ask, peer: Candidate) -> float:
        return 0.0 if peer.asks else 1.0

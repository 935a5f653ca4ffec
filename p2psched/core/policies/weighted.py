"""Shares by weight: what `start --weight` says of a peer."""

from __future__ import annotations

from collections.abc import Sequence

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import Ask, Notes, Shares, fill


class Weighted:
    name = "weighted"
    summary = "in proportion to `start --weight`"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], notes: Notes) -> Shares:
        """By what each was given since the same peers are there: a peer that comes is not given all
        that it has missed."""
        if notes.given.keys() != {peer.peer for peer in peers}:
            notes.given = {peer.peer: 0 for peer in peers}
        before = notes.given
        shares = fill(ask, peers, lambda peer, given: (before[peer.peer] + given + 1) / peer.weight)
        for peer, count in shares:
            before[peer.peer] += count
        return shares

    def score(self, _ask: Ask, peer: Candidate) -> float:
        return 1 / peer.weight

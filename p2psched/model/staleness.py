"""How old what a peer tells without asking a majority may be."""

from __future__ import annotations

import msgspec


class Staleness(msgspec.Struct, frozen=True, array_like=True):
    """Of one answer, or of several that are told together."""

    applied_index: int  # of the last entry that it knows of
    # Since the peer last heard a leader, or as one a majority; None: not since its start.
    age_ms: int | None

    def older(self, other: Staleness | None) -> Staleness:
        """Of two answers that are told together."""
        if other is None:
            return self
        ages = (self.age_ms, other.age_ms)
        known = [age for age in ages if age is not None]
        index = min(self.applied_index, other.applied_index)
        return Staleness(index, max(known) if len(known) == len(ages) else None)

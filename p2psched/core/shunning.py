"""Who gets nothing new because gossip says that it is suspect, dead or has left.

Advice, which may be old or wrong: it delays work and moves none. If gossip doubts most of the
others, it may be our own ears: then only those count that we have not heard over links either.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

from p2psched.model.ids import PeerId

UNHEARD_MS: Final = 500  # several heartbeats, and less than a probe of gossip takes


def to_shun(
    said: Set[PeerId], others: Set[PeerId], *, now_ms: int, heard_ms: Mapping[PeerId, int]
) -> frozenset[PeerId]:
    """`said`: by gossip; `others`: who could get something, without this peer; `heard_ms`: when
    each was last heard over links."""
    doubted = frozenset(said & others)
    if 2 * len(doubted) <= len(others):
        return doubted
    return frozenset(
        peer for peer in doubted if now_ms - heard_ms.get(peer, -UNHEARD_MS) >= UNHEARD_MS
    )

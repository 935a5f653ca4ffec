"""By how soon peers answer: what their tasks took lately, from grant to result.

Shares are the inverse of that: the first of peers that are about as quick would get all otherwise.

A peer that was slow is asked again now and then, or nobody would learn that it is not any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import Ask, Notes, Shares, fill
from p2psched.model.ids import PeerId

PROBE_MS: Final = 2_000  # a peer that nothing was measured of for so long gets one task
LATELY_MAX: Final = 64  # tasks that count as given lately
UNKNOWN: Final = 0  # the kind under which probes are noted: of all kinds


class ResponseTime:
    name = "response-time"
    summary = "the more, the sooner its tasks come back"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], notes: Notes) -> Shares:
        probed: dict[PeerId, int] = {}
        for peer in peers:
            measured = ask.measured.get(peer.peer)
            at_ms = max(
                measured.at_ms if measured is not None else -PROBE_MS,
                notes.tried.get((UNKNOWN, peer.peer), -PROBE_MS),
            )
            if ask.now_ms - at_ms >= PROBE_MS and ask.room(peer) > 0 and len(probed) < ask.count:
                probed[peer.peer] = 1
                notes.tried[UNKNOWN, peer.peer] = ask.now_ms
        if probed and ask.count == len(probed):
            return [(peer, 1) for peer in peers if peer.peer in probed]

        def key(peer: Candidate, given: int) -> tuple[float, ...]:
            if given < probed.get(peer.peer, 0):
                return (-1.0,)
            had = lately.get(peer.peer, 0) + peer.owned + given + 1
            return (self.score(ask, peer) * had / peer.slots,)

        lately = notes.given
        shares = fill(ask, peers, key)
        for peer, count in shares:
            lately[peer.peer] = lately.get(peer.peer, 0) + count
        if sum(lately.values()) > LATELY_MAX:
            notes.given = {name: count // 2 for name, count in lately.items() if count > 1}
        return shares

    def score(self, ask: Ask, peer: Candidate) -> float:
        measured = ask.measured.get(peer.peer)
        if measured is not None:
            return measured.response_ms
        known = [m.response_ms for m in ask.measured.values()]
        return sum(known) / len(known) if known else ask.estimate_us / 1000

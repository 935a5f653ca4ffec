"""Each kind of task to the peers that are good at it, once each peer has had one to show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import Ask, Notes, Shares, fill, mean_us
from p2psched.model.ids import PeerId

AS_GOOD: Final = 1.25  # times what the best peer takes
EXPLORED_MAX: Final = 10_000  # kinds and peers that are noted; beyond it all is explored anew
PATIENCE_MS: Final = (
    60_000  # until a peer that was given one of a kind, and said nothing, gets another
)


class TaskType:
    name = "task-type"
    summary = "the quickest at this kind of task"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], notes: Notes) -> Shares:
        means = {peer.peer: mean_us(peer, ask.kind) for peer in peers}
        best = min((mean for mean in means.values() if mean), default=0)
        fresh: dict[PeerId, int] = {}
        for peer in peers:
            tried_ms = notes.tried.get((ask.kind, peer.peer), -PATIENCE_MS)
            is_due = not means[peer.peer] and ask.now_ms - tried_ms >= PATIENCE_MS
            if is_due and len(fresh) < ask.count and ask.room(peer) > 0:
                fresh[peer.peer] = 1
                notes.tried[ask.kind, peer.peer] = ask.now_ms
        if len(notes.tried) > EXPLORED_MAX:
            notes.tried.clear()

        def key(peer: Candidate, given: int) -> tuple[float, ...]:
            if given < fresh.get(peer.peer, 0):
                return -1.0, 0.0
            mean = means[peer.peer]
            is_good = not best or bool(mean and mean <= best * AS_GOOD)
            return not is_good, (peer.owned + given) / peer.slots

        return fill(ask, peers, key)

    def score(self, ask: Ask, peer: Candidate) -> float:
        return mean_us(peer, ask.kind) or ask.estimate_us

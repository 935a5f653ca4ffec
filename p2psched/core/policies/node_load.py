"""The machine with the least to do, whoever it works for: CPU, memory and GPUs as gossip tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import SHARE_WHOLE, Ask, Notes, Shares, fill, report_of

BUSY: Final = 400  # per mille of CPU by other programs: whoever has more is taken only if all do
MEMORY_LOW: Final = 100  # per mille of memory that is free: likewise


class NodeLoad:
    name = "node-load"
    summary = "the machine with the least to do"
    is_late = False

    def share(self, ask: Ask, peers: Sequence[Candidate], _notes: Notes) -> Shares:
        loads = {peer.peer: foreign_load(peer) for peer in peers}

        def key(peer: Candidate, given: int) -> tuple[float, ...]:
            load = loads[peer.peer]
            return load >= BUSY, load / SHARE_WHOLE + (peer.owned + given) / peer.slots

        return fill(ask, peers, key)

    def score(self, _ask: Ask, peer: Candidate) -> float:
        return foreign_load(peer) / SHARE_WHOLE + peer.owned / peer.slots


def foreign_load(peer: Candidate) -> int:
    """Per mille of the machine that others use; 0 if nothing is known."""
    report = report_of(peer)
    if report is None:
        return 0
    load = report.foreign_cpu
    if report.memory and report.memory_free * SHARE_WHOLE < report.memory * MEMORY_LOW:
        load = max(load, SHARE_WHOLE)
    if report.gpus:
        load = max(load, report.gpus_busy * SHARE_WHOLE // report.gpus)
    return load

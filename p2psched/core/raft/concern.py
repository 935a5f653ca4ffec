"""Whom the commit of an entry concerns: who proposed something in it, who was given tasks, and
through whom the jobs came whose results are in it.

Waking a peer costs more than all that it does with a small entry. So those who only keep a copy
learn of a commit along with the next append. What is not known to concern few concerns everybody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from p2psched.model.actions import Act
from p2psched.model.commands import Complete, Envelope, Place, SubmitJob
from p2psched.model.ids import JobId, PeerId
from p2psched.model.key_actions import DeleteKey, PutKey, Transact
from p2psched.model.moves import Transfer

JOBS_KNOWN_MAX: Final = 10_000  # of the oldest ones the results concern everybody


class Concern:
    """Of one leader. Who follows a job through another peer than it was submitted to hears of its
    results a little later."""

    def __init__(self) -> None:
        self._came_through: OrderedDict[JobId, PeerId] = OrderedDict()
        self.through: Mapping[PeerId, PeerId] = {}  # follower -> who feeds it, and must hear

    def of(self, envelopes: Iterable[Envelope]) -> frozenset[PeerId] | None:
        """None: everybody."""
        peers: set[PeerId] = set()
        for envelope in envelopes:
            peers.add(envelope.proposer)
            match envelope.command:
                case SubmitJob(job=job):
                    self._note(job, envelope.proposer)
                case Place(peer=peer) | Transfer(peer=peer):
                    peers.add(peer)
                case Complete(job=job) if job in self._came_through:
                    peers.add(self._came_through[job])
                case Act(action=PutKey() | DeleteKey() | Transact()):
                    pass  # who watches keys elsewhere hears a few milliseconds later
                case _:
                    return None
        return frozenset(self.through.get(peer, peer) for peer in peers)

    def _note(self, job: JobId, peer: PeerId) -> None:
        self._came_through[job] = peer
        if len(self._came_through) > JOBS_KNOWN_MAX:
            self._came_through.popitem(last=False)

"""The way to other peers, members or not: where a follower is stands in the state."""

from __future__ import annotations

from p2psched.core.state import LedgerState
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody
from p2psched.net.peers import PeerLinks
from p2psched.peer.whereabouts import Whereabouts


class Addresses:
    """Implements `Others`."""

    def __init__(self, where: Whereabouts, links: PeerLinks) -> None:
        self._where = where
        self._links = links
        self.state: LedgerState | None = None  # knows where those are that are no members

    def connected(self) -> frozenset[PeerId]:
        return self._links.connected()

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        """As `PeerLinks.call`."""
        self.find(peer)
        return await self._links.call(peer, body)

    def find(self, peer: PeerId) -> None:
        """Where a follower is it has told the ledger when it came up."""
        row = self.state.peers.get(peer) if self.state is not None else None
        is_lost = peer not in self.connected() and not self._where.is_member(peer)
        if row is not None and is_lost:
            self._where.note(peer, row.info.name, row.info.address)

"""Where other peers are reached, as far as this one has learned, and calls to them."""

from __future__ import annotations

from p2psched.core.feed import members_of
from p2psched.core.state import LedgerState
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody
from p2psched.model.raft import Member, Membership
from p2psched.net.link import Connection
from p2psched.net.peers import PeerLinks
from p2psched.store.folder import AddressBook


class Addresses:
    """Implements `Others`. What is learned goes to the links and into the book."""

    def __init__(self, me: PeerId, links: PeerLinks, book: AddressBook) -> None:
        self._me = me
        self._links = links
        self._book = book
        self._members: dict[PeerId, Member] = {}
        self.known: dict[PeerId, tuple[str, str]] = {}  # peer -> name and address
        self.state: LedgerState | None = None  # knows where those are that are no members

    def load(self) -> None:
        for peer, (name, address) in self._book.load().items():
            self.note(peer, name, address)

    def note(self, peer: PeerId, name: str, address: str) -> None:
        if peer == self._me or self.known.get(peer) == (name, address):
            return
        self.known[peer] = (name, address)
        self._links.set_address(peer, address)
        self._book.save(self.known)

    def on_membership(self, membership: Membership) -> None:
        """What a member's entry says counts when it is news: an address that we learned from the
        peer itself since is newer than an old entry."""
        for member in members_of(membership):
            if self._members.get(member.peer) != member:
                self._members[member.peer] = member
                self.note(member.peer, member.name, member.address)

    def on_opened(self, connection: Connection) -> None:
        """A peer has connected to us: it is there, and says where."""
        peer = connection.peer
        if peer is not None and connection.remote.address:
            name, _ = self.known.get(peer, ("", ""))
            self.note(peer, name, connection.remote.address)
            self._links.poke(peer)

    # --- port `Others` ---

    def connected(self) -> frozenset[PeerId]:
        return self._links.connected()

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        """As `PeerLinks.call`. Where a follower is it has told the ledger when it came up."""
        row = self.state.peers.get(peer) if self.state is not None else None
        if row is not None and peer not in self._members and peer not in self.connected():
            self.note(peer, row.info.name, row.info.address)
        return await self._links.call(peer, body)

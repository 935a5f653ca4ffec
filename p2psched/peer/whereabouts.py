"""Where the other members are: what this peer was told, what it has seen, and whom it asks.

Who somebody is stands on their disk; where they are is learned, from the ledger, from the address
book of an earlier start, from each connection, and, while nobody leads, by asking around
(`peer.joining`). An address is only ever a guess: a link checks who answers there. Within a start
it forgets peers that were removed, and of addresses the oldest of many: an old one may be
somebody's again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from p2psched.model.errors import UsageError
from p2psched.model.ids import PeerId, is_id
from p2psched.model.raft import Member, Membership
from p2psched.model.sighting_messages import Sighting, Sightings, WhereAre
from p2psched.net.address import parse
from p2psched.net.link import Connection
from p2psched.net.peers import PeerLinks
from p2psched.store.address_book import ADDRESSES_MAX, AddressBook
from p2psched.store.folder import NAME_LEN_MAX

HEARD_OF_MAX: Final = 256  # addresses; the oldest are forgotten
SIGHTINGS_MAX: Final = 64  # that are told in one answer


class Whereabouts:
    """Of one run of a peer. `links` are told each address that is news."""

    def __init__(self, me: Member, *, links: PeerLinks, book: AddressBook) -> None:
        self._me = me
        self._links = links
        self._book = book
        self._kept = book.load()  # before it is written anew
        self._known: dict[PeerId, tuple[str, str]] = {}  # name and address
        self._members: dict[PeerId, Member] = {}
        self._seen: dict[PeerId, str] = {}  # from each itself, in this run: no hearsay
        self._heard_of: dict[str, None] = {}  # addresses, whosoever they were
        self._removed: frozenset[PeerId] = frozenset()  # as of the newest membership

    @property
    def known(self) -> Mapping[PeerId, tuple[str, str]]:
        """Peer -> name and address. Grows and changes."""
        return self._known

    @property
    def addresses(self) -> list[str]:
        """All that this peer has heard of, the newest first."""
        return list(reversed(self._heard_of))

    @property
    def missing(self) -> tuple[PeerId, ...]:
        """Members that no connection goes to."""
        members = self._members.keys() | self._known.keys()
        there = self._links.connected() | {self._me.peer}
        return tuple(sorted(members - there)[:SIGHTINGS_MAX])

    def read_book(self) -> None:
        """What the last process of this peer knew: at least as new as its log."""
        for peer, (name, address) in self._kept.items():
            if peer not in self._removed:
                self.note(peer, name, address)

    def on_membership(self, membership: Membership) -> None:
        """What a member's entry says counts when it is news: an address that we learned from the
        peer itself since is newer than an old entry. Who was removed is forgotten with the next
        change: then it has been told, or won't be."""
        removed = frozenset(membership.removed)
        for peer in sorted(removed & self._removed):
            self._forget(peer)
        self._removed = removed
        for member in (*membership.voters, *membership.learners):
            if self._members.get(member.peer) != member:
                self._members[member.peer] = member
                self.note(member.peer, member.name, member.address)

    def _forget(self, peer: PeerId) -> None:
        """But for its address, which may be another's by now."""
        self._members.pop(peer, None)
        self._seen.pop(peer, None)
        if self._known.pop(peer, None) is not None:
            self._links.remove(peer)
            self._book.save(self._known)

    def is_member(self, peer: PeerId) -> bool:
        return peer in self._members

    def note(self, peer: PeerId, name: str, address: str) -> None:
        """Somebody says that `peer` is there."""
        if peer == self._me.peer:
            if address and address != self._me.address:
                self._hear_of(address)  # we were; who is there now may know the others
            return
        if peer not in self._known and len(self._known) >= ADDRESSES_MAX:
            return
        known_name, known_address = self._known.get(peer, ("", ""))
        name = name or known_name
        if (name, address) == (known_name, known_address):
            return
        self._hear_of(address)
        self._known[peer] = (name, address)
        self._links.set_address(peer, address)
        self._book.save(self._known)

    def _hear_of(self, address: str) -> None:
        self._heard_of.pop(address, None)
        self._heard_of[address] = None
        if len(self._heard_of) > HEARD_OF_MAX:
            del self._heard_of[next(iter(self._heard_of))]

    def on_opened(self, connection: Connection) -> None:
        """A peer has connected to us, or we to it."""
        if connection.peer is not None and connection.address:
            self.meet(connection.peer, connection.address)

    def meet(self, peer: PeerId, address: str, name: str = "") -> None:
        """`peer` itself says that it is there, or answers there."""
        if peer != self._me.peer:
            self.note(peer, name, address)
            if peer in self._known:
                self._seen[peer] = address
                self._links.poke(peer)

    # --- asking around ----------------------------------------------------------------------------

    def question(self) -> WhereAre:
        me = self._me
        return WhereAre(Sighting(me.peer, me.name, me.address), self.missing)

    def answer(self, asked: WhereAre) -> Sightings:
        """To a peer that misses others; both say where they are themselves."""
        asker, me = asked.asker, self._me
        if is_usable(asker):
            self.meet(asker.peer, asker.address, asker.name)
        found = [peer for peer in asked.missing[:SIGHTINGS_MAX] if peer in self._seen]
        seen = [Sighting(peer, self._known[peer][0], self._seen[peer]) for peer in found]
        return Sightings((Sighting(me.peer, me.name, me.address), *seen))

    def on_answer(self, peer: PeerId, sightings: Iterable[Sighting]) -> None:
        """`peer` has answered. Of others it is hearsay, of use only where no connection is."""
        missing = self.missing
        for seen in sightings:
            if not is_usable(seen):
                continue
            if seen.peer == peer:
                self._seen[peer] = seen.address  # which may be another one than that we use
            elif seen.peer in missing:
                self.note(seen.peer, seen.name, seen.address)
                self._links.poke(seen.peer)


def is_usable(seen: Sighting) -> bool:
    """False for what a peer of ours would not say."""
    try:
        parse(seen.address)
    except UsageError:
        return False
    return is_id(seen.peer) and len(seen.name) <= NAME_LEN_MAX and seen.name.isprintable()

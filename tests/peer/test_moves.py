"""Peers that are restarted at other addresses, in any order and any number of times, find each
other again through one address that each of them knows, or that each is told to join.

The pure part of it, on a network that is a dictionary: in each round everybody who misses somebody
asks at all addresses that it has heard of, as `peer.joining` does in a few rounds more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.model.ids import PeerId
from p2psched.model.raft import Member, Membership
from p2psched.net.auth import Identity
from p2psched.net.link import Handlers
from p2psched.net.peers import PeerLinks
from p2psched.peer.whereabouts import Whereabouts
from p2psched.store.address_book import AddressBook

PEERS_MAX = 6
ADDRESSES = 9  # few: they are others' again soon
ROUNDS = 3  # the first for whom everybody asks to meet them, the second to hear of them


class Network:
    """Who is where; -1: nobody is there."""

    def __init__(self, count: int) -> None:
        self.at = list(range(count))  # address of each peer, or -1: it is down
        self.members = list(range(count))  # where the ledger says that they are
        self.peers = [Running(self, number) for number in range(count)]

    def who(self, address: str) -> Running | None:
        number = int(address.split(":")[1])
        return next((peer for peer in self.peers if self.at[peer.number] == number), None)


class Links(PeerLinks):
    """A connection is there wherever a dial would reach the right peer."""

    def __init__(self, network: Network, me: PeerId) -> None:
        nothing = Handlers(on_message=lambda _connection, _message: None)
        own = Identity(peer=me, address="host:1")
        super().__init__(identity=own, secret=bytes(32), handlers=nothing, rng=random.Random(1))
        self._network = network

    def connected(self) -> frozenset[PeerId]:
        found = (self._network.who(address) for address in map(self._at, self._network.peers))
        here = zip(self._network.peers, found, strict=True)
        return frozenset(peer.id for peer, answers in here if answers is peer)

    def _at(self, peer: Running) -> str:
        return self.address(peer.id) or "host:99"

    def poke(self, peer: PeerId) -> None:
        """It is tried at once anyway."""


class Book(AddressBook):
    """Of a disk that is quick."""

    def __init__(self) -> None:
        super().__init__(Path())
        self._entries: dict[PeerId, tuple[str, str]] = {}

    def load(self) -> dict[PeerId, tuple[str, str]]:
        return dict(self._entries)

    def save(self, entries: Mapping[PeerId, tuple[str, str]]) -> None:
        self._entries = dict(entries)


class Running:
    """A peer over all of its processes."""

    def __init__(self, network: Network, number: int) -> None:
        self._network = network
        self.number = number
        self.id = PeerId(f"{number + 1:032x}")
        self._book = Book()

    def member(self, number: int) -> Member:
        return Member(self.id, f"peer-{self.number}", f"host:{number}")

    def start(self) -> None:
        """As `node` does: the log first, then what the last process knew."""
        network = self._network
        own = self.member(network.at[self.number])
        self.links = Links(network, self.id)
        self.where = Whereabouts(own, links=self.links, book=self._book)
        self.hear()
        self.where.read_book()

    def hear(self) -> None:
        """What the ledger says by now."""
        network = self._network
        members = tuple(p.member(network.members[p.number]) for p in network.peers)
        self.where.on_membership(Membership(members))

    @property
    def on_disk(self) -> set[str]:
        """Addresses that its next process knows: of the ledger, and of the book."""
        ledger = {f"host:{number}" for number in self._network.members}
        return ledger | {address for _, address in self._book.load().values()}

    def ask_around(self, joins: Sequence[str]) -> None:
        for address in [*joins, *self.where.addresses]:
            other = self._network.who(address)
            if other is not None and other is not self:
                self.where.meet(other.id, address)
                self.where.on_answer(other.id, other.where.answer(self.where.question()).found)

    def call(self) -> None:
        """Whoever takes a connection learns who it is from, and where that one is."""
        network = self._network
        for other in network.peers:
            if other is not self and other.id in self.links.connected():
                other.where.meet(self.id, f"host:{network.at[self.number]}")

    @property
    def misses(self) -> set[PeerId]:
        others = {peer.id for peer in self._network.peers if peer is not self}
        return others - self.links.connected()


def restart(network: Network, moves: dict[int, int]) -> None:
    """These are at other addresses from now on; where two would be, the second stays away."""
    for number in moves:
        network.at[number] = -1
    for number, address in moves.items():
        if address not in network.at:
            network.at[number] = address
            network.peers[number].start()


def meet(network: Network, joins: Sequence[str] = ()) -> None:
    for _ in range(ROUNDS):
        for peer in network.peers:
            if network.at[peer.number] >= 0:
                peer.call()
                if peer.misses:
                    peer.ask_around(joins)


def lead(network: Network) -> None:
    """Where a majority has found each other the ledger tells all who are up where they are."""
    up = [peer for peer in network.peers if network.at[peer.number] >= 0]
    if 2 * len(up) > len(network.peers):
        for peer in up:
            network.members[peer.number] = network.at[peer.number]
        for peer in up:
            peer.hear()


MOVES = st.dictionaries(st.integers(0, PEERS_MAX - 1), st.integers(0, ADDRESSES - 1), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, PEERS_MAX), st.lists(MOVES, max_size=6), st.data())
def test_whoever_is_restarted_wherever_is_found_again(
    count: int, history: list[dict[int, int]], data: st.DataObject
) -> None:
    async def story() -> None:
        network = Network(count)
        for peer in network.peers:
            peer.start()
        for moves in history:
            restart(network, {n: to for n, to in moves.items() if n < count})
            meet(network)
            lead(network)
        # All stop, and start at addresses of which none has to be where it was, but one.
        joins: list[str] = []
        places = data.draw(st.permutations(range(ADDRESSES)))[:count]
        if data.draw(st.booleans()):
            joins = [f"host:{places[data.draw(st.integers(0, count - 1))]}"]
        else:
            common = set.intersection(*(peer.on_disk for peer in network.peers))
            anchor = int(data.draw(st.sampled_from(sorted(common))).split(":")[1])
            places = [anchor, *(place for place in places if place != anchor)][:count]
        network.at = [-1] * count
        restart(network, dict(enumerate(places)))
        meet(network, joins)
        assert {peer.number: peer.misses for peer in network.peers} == {
            number: set() for number in range(count)
        }

    asyncio.run(story())

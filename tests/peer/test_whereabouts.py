"""Where other members are: hearsay, what was seen, and what is only a guess."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.model.ids import PeerId
from p2psched.model.raft import Member, Membership
from p2psched.model.sighting_messages import Sighting, Sightings, WhereAre
from p2psched.net.auth import Identity
from p2psched.net.link import Handlers
from p2psched.net.peers import PeerLinks
from p2psched.peer import whereabouts
from p2psched.peer.whereabouts import Whereabouts
from p2psched.store.address_book import AddressBook

ME, B, C, D = (PeerId(digit * 32) for digit in "abcd")


class Links(PeerLinks):
    """Connected to whom a test says."""

    def __init__(self) -> None:
        nothing = Handlers(on_message=lambda _connection, _message: None)
        own = Identity(peer=ME, address="me:1")
        super().__init__(identity=own, secret=bytes(32), handlers=nothing, rng=random.Random(1))
        self.there: frozenset[PeerId] = frozenset()

    def connected(self) -> frozenset[PeerId]:
        return self.there


def member(peer: PeerId, address: str) -> Member:
    return Member(peer, peer[0], address, True)


def with_where(tmp_path: Path, story: Callable[[Whereabouts, Links], None]) -> None:
    async def main() -> None:
        links = Links()
        book = AddressBook(tmp_path / "peers.json")
        where = Whereabouts(member(ME, "me:1"), links=links, book=book)
        members = tuple(member(peer, f"{peer[0]}:1") for peer in (ME, B, C))
        where.on_membership(Membership(members))
        story(where, links)

    asyncio.run(main())


def test_hearsay_counts_of_members_that_no_connection_goes_to(tmp_path: Path) -> None:
    def story(where: Whereabouts, links: Links) -> None:
        links.there = frozenset({B})
        assert where.missing == (C,)
        said = (Sighting(B, "b", "b:9"), Sighting(C, "c", "c:9"), Sighting(D, "d", "d:9"))
        where.on_answer(PeerId("e" * 32), said)
        assert links.address(B) == "b:1"  # it is known better here
        assert links.address(C) == "c:9"
        assert links.address(D) is None  # no member: nobody asked

    with_where(tmp_path, story)


def test_only_what_was_seen_in_this_run_is_passed_on(tmp_path: Path) -> None:
    AddressBook(tmp_path / "peers.json").save({B: ("b", "b:7")})

    def story(where: Whereabouts, links: Links) -> None:
        where.read_book()
        assert links.address(B) == "b:7"  # newer than the log
        asked = WhereAre(Sighting(C, "c", "c:9"), (B, D))
        own = Sighting(ME, "a", "me:1")
        assert where.answer(asked) == Sightings((own,))
        where.meet(B, "b:8")
        assert where.answer(asked) == Sightings((own, Sighting(B, "b", "b:8")))
        assert links.address(C) == "c:9"  # whoever asks says where it is

    with_where(tmp_path, story)


def test_what_a_peer_calls_its_own_address_is_passed_on_and_not_how_we_reached_it(
    tmp_path: Path,
) -> None:
    def story(where: Whereabouts, links: Links) -> None:
        where.meet(B, "127.0.0.1:8")
        where.on_answer(B, (Sighting(B, "b", "b.example:8"),))
        assert links.address(B) == "127.0.0.1:8"
        asked = WhereAre(Sighting(C, "c", "c:9"), (B,))
        assert where.answer(asked).found[1] == Sighting(B, "b", "b.example:8")

    with_where(tmp_path, story)


def test_old_addresses_are_asked_at_again_and_the_oldest_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whereabouts, "HEARD_OF_MAX", 3)

    def story(where: Whereabouts, links: Links) -> None:
        where.note(B, "", "b:2")
        where.note(B, "", "b:3")
        assert where.addresses == ["b:3", "b:2", "c:1"]
        assert where.known[B] == ("b", "b:3")

    with_where(tmp_path, story)


@pytest.mark.parametrize(
    "said",
    [Sighting(C, "c", ""), Sighting(C, "c", "c:99999"), Sighting(C, "c\n", "c:9")],
    ids=["no address", "no port", "no name"],
)
def test_what_no_peer_would_say_is_left_out(tmp_path: Path, said: Sighting) -> None:
    def story(where: Whereabouts, links: Links) -> None:
        where.on_answer(B, (said,))
        where.answer(WhereAre(said, ()))
        assert links.address(C) == "c:1"

    with_where(tmp_path, story)


def test_who_was_removed_is_forgotten_with_the_next_change_and_not_its_address(
    tmp_path: Path,
) -> None:
    """At once it would not be told of it any more."""
    AddressBook(tmp_path / "peers.json").save({C: ("c", "c:1")})

    def story(where: Whereabouts, links: Links) -> None:
        left = tuple(member(peer, f"{peer[0]}:1") for peer in (ME, B))
        where.on_membership(Membership(left, removed=(C,)))
        assert links.address(C) == "c:1"
        where.on_membership(Membership(left, (member(D, "d:1"),), removed=(C,)))
        assert links.address(C) is None
        assert where.missing == (B, D)
        assert "c:1" in where.addresses
        assert set(AddressBook(tmp_path / "peers.json").load()) == {B, D}
        where.read_book()  # of an earlier start, which knew C still
        assert links.address(C) is None

    with_where(tmp_path, story)

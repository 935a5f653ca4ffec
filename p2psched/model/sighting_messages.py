"""How peers that nobody leads find each other: see `peer.whereabouts`."""

from __future__ import annotations

import msgspec

from p2psched.model.ids import PeerId


class Sighting(msgspec.Struct, frozen=True, array_like=True):
    """Where a peer is, as somebody knows from it itself."""

    peer: PeerId
    name: str
    address: str


class WhereAre(msgspec.Struct, frozen=True, array_like=True, tag=61):
    """A peer that nobody leads asks whoever answers at an address that it once heard of."""

    asker: Sighting
    missing: tuple[PeerId, ...]


class Sightings(msgspec.Struct, frozen=True, array_like=True, tag=60):
    """Of the peer that answers, and of those that it was asked about and has seen itself."""

    found: tuple[Sighting, ...]

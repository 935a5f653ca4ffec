"""Gossip that goes over links: two peers compare what they know (ADR 0049). Tags are for ever;
fields are only appended, with defaults. The bytes inside are those of `model.gossip`.
"""

from __future__ import annotations

import msgspec

from p2psched.model.ids import PeerId


class Compare(msgspec.Struct, frozen=True, array_like=True, tag=105):
    """Who asks, and what it knows, in short. `numbers`: of the news of each peer that it holds for
    alive or suspect, itself too, in the order of the identities."""

    asker: PeerId
    standing: bytes  # of the asker, one
    digest: bytes  # of whom it holds for alive or suspect
    numbers: tuple[int, ...] = ()


class Compared(msgspec.Struct, frozen=True, array_like=True, tag=106):
    """Equal digests: news that the asker lacks, and whose it has newer. Else all there is."""

    equal: bool
    standings: bytes
    news: bytes
    wants: tuple[int, ...] = ()  # places in `numbers`


class Tell(msgspec.Struct, frozen=True, array_like=True, tag=107):
    """What the other one lacks, as its answer says. Answered by `Told`."""

    teller: PeerId
    standings: bytes
    news: bytes


class Told(msgspec.Struct, frozen=True, array_like=True, tag=108):
    pass


class Carried(msgspec.Struct, frozen=True, array_like=True, tag=109):
    """One way: a datagram over a link, to or from a peer that gets none."""

    data: bytes


GossipCall = Compare | Tell
GossipAnswer = Compared | Told

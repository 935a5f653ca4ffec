"""Whom this peer knows, and which of two things that are said of somebody counts.

A newer incarnation counts before an older one, and within one: suspect before alive, dead before
both, left before all. So equal rumours, in whatever order, lead to equal views.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator, Mapping

from p2psched.core.swim.settings import MEMBERS_MAX
from p2psched.model.gossip import Standing
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

PRESENT = (Liveness.ALIVE, Liveness.SUSPECT)


class Member:
    """Another peer. Only `Members` changes it."""

    __slots__ = ("address", "deaf", "life", "liveness", "number", "peer", "since_ms")

    def __init__(self, said: Standing, now_ms: int) -> None:
        self.peer = said.peer
        self.life = said.life
        self.number = said.number
        self.liveness = said.liveness
        self.address = said.address
        self.deaf = said.deaf
        self.since_ms = now_ms  # that it stands so

    @property
    def is_present(self) -> bool:
        return self.liveness in PRESENT

    @property
    def order(self) -> tuple[int, int, int]:
        return self.life, self.number, self.liveness

    @property
    def datagram_address(self) -> str:
        """Empty if it hears none."""
        return "" if self.deaf else self.address

    def standing(self, accuser: bytes = b"") -> Standing:
        address = self.address if self.liveness is Liveness.ALIVE else ""
        return Standing(
            *(self.peer, self.life, self.number, self.liveness, address, self.deaf, accuser)
        )


def order(said: Standing) -> tuple[int, int, int]:
    return said.life, said.number, said.liveness


class Members:
    """All but this peer itself."""

    def __init__(self) -> None:
        self._members: dict[PeerId, Member] = {}
        self._present = 0

    @property
    def present(self) -> int:
        """How many are alive or suspect."""
        return self._present

    @property
    def known(self) -> Mapping[PeerId, Member]:
        return self._members

    def get(self, peer: PeerId) -> Member | None:
        return self._members.get(peer)

    def accept(self, said: Standing, now_ms: int) -> bool:
        """True if that is news. Who is not known is not taken up as suspect or dead: where it is
        nobody has said, and who has forgotten a dead one would only hear of it again."""
        member = self._members.get(said.peer)
        if member is None:
            if said.liveness is not Liveness.ALIVE or len(self._members) >= MEMBERS_MAX:
                return False
            self._members[said.peer] = Member(said, now_ms)
            self._present += 1
            return True
        if order(said) <= member.order:
            return False
        was_present = member.is_present
        if said.liveness is not member.liveness or said.life != member.life:
            member.since_ms = now_ms
        member.life, member.number, member.liveness = said.life, said.number, said.liveness
        if said.liveness is Liveness.ALIVE:
            member.address, member.deaf = said.address or member.address, said.deaf
        self._present += member.is_present - was_present
        return True

    def remove(self, peer: PeerId) -> Member | None:
        member = self._members.pop(peer, None)
        if member is not None:
            self._present -= member.is_present
        return member

    def sorted_present(self) -> list[Member]:
        return [member for _, member in sorted(self._members.items()) if member.is_present]

    def of(self, *liveness: Liveness) -> Iterator[Member]:
        """In no order that means anything, but the same each time."""
        return (member for member in self._members.values() if member.liveness in liveness)

    def choose(
        self, rng: random.Random, count: int, *liveness: Liveness, but: Collection[PeerId] = ()
    ) -> list[Member]:
        """Some at random."""
        found = [member for member in self.of(*liveness) if member.peer not in but]
        return rng.sample(found, min(count, len(found)))

    def digest(self, me: Standing) -> bytes:
        """Equal on peers that hold the same ones for alive or suspect, as of the same
        incarnations."""
        hashed = hashlib.blake2b(digest_size=8)
        rows = [(m.peer, *m.order) for m in self._members.values() if m.is_present]
        for peer, life, number, liveness in sorted([*rows, (me.peer, *order(me))]):
            hashed.update(f"{peer}{life},{number},{liveness:d};".encode())
        return hashed.digest()

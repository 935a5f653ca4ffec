"""Damage to the log of a simulated peer while it is down: turned bits, ends and files that are
gone.

Only to what its marker vouches for, because behind it nobody can tell damage from a torn tail; and
only to one disk at a time, until its log is whole again: of what a majority has lost nothing can
be asked. So whatever happens, no promise may break.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from p2psched.store.marker import Mark, read_marked
from p2psched.store.segments import HEADER_BYTES, Header, decode_header, decode_record, segment_name
from p2psched.testing.faults import Faults
from p2psched.testing.sim_disk import SimDisk

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

VOTERS_MIN: Final = 3


class Hurt:
    """Of a whole cluster in which all vote. Draws from an `rng` of its own."""

    def __init__(self, rng: random.Random, *, all_vote: bool) -> None:
        self._rng = rng
        self._all_vote = all_vote
        self._hurt: SimPeer | None = None

    def may_hurt(self, peer: SimPeer, peers: Sequence[SimPeer], faults: Faults) -> bool:
        """Perhaps damage the log of a peer that is down. True if it did."""
        if not self._all_vote or faults.wipe_every_ms or faults.rot_every_ms:
            return False  # disks that are gone for good are the minority that may be
        if not faults.hurt or self._rng.random() >= faults.hurt or not self._may(peers):
            return False
        marked, _ = read_marked(peer.disk)
        if marked is None or not self._damage(peer.disk, marked.mark):
            return False
        self._hurt = peer
        peer.is_hurt = True
        return True

    def _may(self, peers: Sequence[SimPeer]) -> bool:
        if len(peers) < VOTERS_MIN:
            return False
        hurt = self._hurt
        if hurt is not None and hurt.alive and not hurt.engine.raft.is_regaining:
            self._hurt = hurt = None
        return hurt is None

    def _damage(self, disk: SimDisk, mark: Mark) -> bool:
        rng, name = self._rng, segment_name(mark.segment)
        if name not in disk.names():
            return False
        match rng.randrange(4):
            case 0:
                disk.flip_bit(name, rng.randrange(8 * mark.offset))
            case 1:
                disk.lose_end(name, rng.randrange(mark.offset))
            case 2:
                ends = [at for at in record_ends(disk.read(name)) if at < mark.offset]
                if not ends:
                    return False
                disk.lose_end(name, rng.choice(ends))
            case _:
                disk.lose(name)
        return True


def record_ends(data: bytes) -> list[int]:
    """Where the records of a segment end, its header among them."""
    header = decode_header(data)
    if not isinstance(header, Header):
        return []
    ends = [HEADER_BYTES]
    while record := decode_record(memoryview(data), ends[-1], header.checksum):
        ends.append(record.end)
    return ends

"""Damage to bytes that a simulated disk had durably: flipped bits, writes that got lost, and writes
that landed in another place.

It touches only what a peer can know to be damaged: of the newest segment of a log the group that
was synced last looks, when it is damaged, like one that a loss of power cut short (`store.recovery`
says why), so that group is left alone. Damage is never nothing: bytes do change.
"""

from __future__ import annotations

import random
from typing import Final

from p2psched.store.segments import HEADER_BYTES
from p2psched.testing.sim_disk import SECTOR_BYTES, SimDisk

KINDS: Final = ("bit flipped", "write lost", "write misdirected")
LOG_PREFIX: Final = "log-"


def damage(disk: SimDisk, rng: random.Random, *, spare: str) -> str | None:
    """Damage one of the files but `spare`. Returns the kind, or None if nothing was changed."""
    kind = rng.choice(KINDS)
    ends = {name: end for name, end in _damageable(disk).items() if end and name != spare}
    if not ends:
        return None
    name = rng.choice([*ends])
    before = disk.read(name)
    at = rng.randrange(ends[name])
    if kind == "bit flipped":
        disk.flip_bit(name, 8 * at + rng.randrange(8))
        return kind
    start = at - at % SECTOR_BYTES
    size = min(SECTOR_BYTES, ends[name] - start)
    sector = bytes(size)
    if kind == "write misdirected":
        other = disk.read(rng.choice([*ends]))
        source = rng.randrange(0, len(other), SECTOR_BYTES)
        sector = other[source : source + size]
    if sector == before[start : start + len(sector)]:
        return None
    disk.overwrite(name, start, sector)
    return kind


def _damageable(disk: SimDisk) -> dict[str, int]:
    """Files, and up to where each may be damaged."""
    names = disk.names()
    segments = sorted(name for name in names if name.startswith(LOG_PREFIX))
    ends: dict[str, int] = {}
    for name in names:
        durable, settled = disk.durable_bytes(name)
        ends[name] = durable
        if name in segments:
            later = segments[segments.index(name) + 1 :]
            followed = any(disk.durable_bytes(other)[0] >= HEADER_BYTES for other in later)
            ends[name] = durable if followed else settled
    return ends

"""What a seed draws beside the faults of `Faults.draw`: each by a generator of its own, so that a
further one changes nothing of the others.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from p2psched.core.raft.progress import Compaction
from p2psched.model.limits import KIB
from p2psched.testing.faults import Faults
from p2psched.testing.sim_doubts import with_doubts
from p2psched.testing.sim_drains import with_drains
from p2psched.testing.sim_stalls import with_stalls
from p2psched.testing.sim_stealing import with_stealing
from p2psched.testing.sim_world import Snapshots

HURT_ALONE: Final = 0.5  # of the seeds that damage logs: no other bytes rot


def drawn_apart(faults: Faults, seed: int, *, healing: bool) -> Faults:
    """With members that are replaced, damaged logs, wishes of people, drains, and doubts."""
    hurt = random.Random(f"hurts {seed}")  # drawn apart, and more often where it may be
    faults = replace(faults, hurt=hurt.choice((0, 0.05, 0.3)))
    if faults.hurt and hurt.random() < HURT_ALONE:
        faults = replace(faults, rot_every_ms=0)
    members = random.Random(f"members {seed}")
    faults = replace(faults, replace_every_ms=members.choice((0, 0, 0, 1_000, 4_000)))
    if faults.replace_every_ms:  # disks that are lost otherwise are more than the rest can bear
        faults = replace(faults, wipe_every_ms=0, rot_every_ms=0, hurt=0.0)
    if not (faults.wipe_every_ms or faults.rot_every_ms or faults.hurt):  # else nobody asks for one
        faults = replace(faults, regroup_every_ms=members.choice((0, 700)) * healing)
    return with_stalls(with_doubts(with_stealing(with_drains(faults, seed), seed), seed), seed)


def draw_snapshots(rng: random.Random) -> Snapshots:
    """From never to all the time, with tails and pieces from tiny to larger than all there is."""
    every = rng.choice((0, 5, 5, 10, 20, 50))
    entries, size, most = rng.choice(((0, 0, 0), (3, 1_000, 4_000), (20, 4_000, 16_000)))
    piece = rng.choice((200, 2_000, 256 * KIB))
    return Snapshots(every, Compaction(entries, size, most, piece))

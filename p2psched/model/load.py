"""What a peer says of itself in gossip: what it can do, and how busy it is.

Advice only: it may be old, wrong, or a lie, and no decision that must be safe reads it.
"""

from __future__ import annotations

import enum

import msgspec

from p2psched.model.ids import PeerId


class Liveness(enum.IntEnum):
    """What gossip thinks of a peer; that it is down only the ledger can say."""

    ALIVE = 0
    SUSPECT = 1  # it did not answer, nor through others; it may still say that it lives
    DEAD = 2
    LEFT = 3  # it said so itself


class TypeSpeed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How long tasks of one type take on a peer: an exponentially weighted mean and its spread."""

    kind: int  # 32 bits of the digest of the function's path or the command line
    mean_us: int
    spread_us: int  # mean absolute deviation
    count: int  # measured so far


class LoadReport(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """As of one moment of one incarnation. 0 or empty is "none" or "not known" unless it says
    otherwise. Memory and disk are MiB, network KiB/s, shares per mille."""

    number: int  # rises with each report of an incarnation
    slots: int = 0
    running: int = 0  # slots in use
    queue: int = 0  # tasks that it owns and that no batch was made of
    queue_us: int = 0  # expected work of those and of what runs
    takes: bool = True  # False: drained, cordoned, full or in quarantine: it wants nothing
    queued: tuple[tuple[int, int], ...] = ()  # (kind of work, tasks): the largest few
    cores: int = 0
    cpu: int = 0  # of all cores, whoever uses them
    foreign_cpu: int = 0  # of all cores, by others than this peer and its tasks
    memory: int = 0
    memory_free: int = 0
    disk_free: int = 0
    gpus: int = 0
    gpus_busy: int = 0
    received: int = 0
    sent: int = 0
    speeds: tuple[TypeSpeed, ...] = ()
    warm: tuple[int, ...] = ()  # 32 bits each of the digests of what is loaded already
    battery: int = -1  # per cent; -1: it has none
    mains: bool = True
    temperature: int = -1  # degrees Celsius of the hottest sensor; -1: none
    duty: int = 1000  # share of the time that its slots may be in use (`start --duty`)
    unused: int = 1000  # keeps its place: how much a peer can do is in the ledger (`Offers`)
    npus: int = 0  # accelerators that are no graphics processors
    machine: int = 0  # the same for peers that share exactly the same processors
    load: int = 0  # hundredths of processes that run or want to: the kernel's average of a minute


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A peer as this one last heard of it."""

    peer: PeerId
    incarnation: int
    liveness: Liveness
    heard_ms: int  # our time when its newest report was made, as far as we know
    load: LoadReport | None = None  # None: it has not said anything yet

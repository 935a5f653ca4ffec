"""What the demo found out: plain values, the same for people and for `--json`.

Refuses nothing and decides one thing: `Facts.ok`, which is true only if every check holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from p2psched.demo.digits import Winner

JSON_VERSION: Final = 1  # of the report; rises when a name changes or goes


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """One peer over all of its processes."""

    name: str
    peer: str  # its identity, the same over restarts
    address: str
    slots: int
    pids: tuple[int, ...]  # of every start, oldest first
    role: str  # at the end
    state: str  # at the end
    tasks: int  # of the main job, whose results it brought


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """Tasks that were granted to one peer and had to be granted to another."""

    cause: str
    peer: str  # name of the one that lost them
    tasks: str  # indices, as ranges
    count: int
    ended_by: Mapping[str, int]  # name of a peer -> how many of them it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The death of the leader. Times in seconds count from the start of the demo."""

    killed: str
    pid: int
    at_s: float
    unfinished: int  # tasks of the job at that moment
    leader: str  # the next one
    leaderless_ms: int  # kill -9 until a survivor said of itself that it leads
    how_measured: str
    seen_by_peers_ms: int  # the longest time that a survivor knew of no leader
    client_was_at_killed: bool
    client_moved_to: str  # name of a peer
    restarted_at_s: float
    restarted_while_running: bool
    back_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that must hold."""

    text: str
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The whole report."""

    job: str
    reduce_job: str
    reduced_by: str  # name of the peer that ran the reduce task
    tasks: int
    folds: int
    images: int
    winner: Winner
    peers: tuple[PeerFacts, ...]
    reruns: tuple[Rerun, ...]
    attempts_lost: int
    results_refused: int
    outage: Outage | None
    checks: tuple[Check, ...]
    cluster_s: float  # submit until the last result was here
    alone_s: float  # the same grid in one process, beside it
    total_s: float
    version: int = field(default=JSON_VERSION)

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

"""Peers of a simulation that stop cleanly, hand over their lead, or get a slow disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from p2psched.model.commands import Outcome
from p2psched.model.raft import RaftMessage, VoteRequest
from p2psched.testing.sim_items import HandOverHere

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster
    from p2psched.testing.sim_lives import Lives
    from p2psched.testing.sim_peer import SimPeer

LEAVE_MS_MAX: Final = 2_000  # a peer that is stopped cleanly waits no longer for the ledger
HAND_OVER_MS_MAX: Final = 1_000  # nor for another leader
LOOK_MS: Final = 1
SLOW_SYNCS_US: Final = (100_000, 300_000, 900_000, 2_000_000)
SLOW_MS_MAX: Final = 10_000


def leave(cluster: Lives, peer: SimPeer, kill: Callable[[], None]) -> None:
    """Let a peer give back its tasks, then its lead, and `kill` this process sooner or later."""
    process = peer.process

    def end() -> None:
        if peer.process == process:
            kill()

    def on_left(_: Outcome) -> None:
        cluster.happened["left"] += 1
        cluster.referees.on_left(peer)
        hand_over(cluster, peer)
        _when_led(cluster, peer, process, cluster.now_us + HAND_OVER_MS_MAX * 1000, end)

    tag = cluster.callers.leave(peer.number, on_left)
    cluster.after(LEAVE_MS_MAX, lambda: end() if cluster.callers.give_up(tag) else None)


def _when_led(
    cluster: Lives, peer: SimPeer, process: int, until_us: int, then: Callable[[], None]
) -> None:
    """Once another leads whom this process follows, or it was never handed over."""

    def look() -> None:
        raft = peer.engine.raft
        follows = raft.leader not in (None, peer.id)
        if peer.process != process or follows or cluster.now_us >= until_us:
            then()
        else:
            cluster.after(LOOK_MS, look)

    cluster.after(LOOK_MS, look)


def hand_over(cluster: Lives, peer: SimPeer) -> None:
    """Ask a peer to let another lead; nothing happens if it doesn't lead."""
    cluster.bring(1, peer.number, peer.process, HandOverHere())


def says_hand_over(message: RaftMessage) -> bool:
    return isinstance(message, VoteRequest) and message.transfer


def start_hand_overs(cluster: SimCluster) -> None:
    """Leaders hand over and disks become slow for a while at drawn moments, in some seeds, while
    the cluster's faults last. Drawn apart: all else of the seed is drawn as without."""
    rng = random.Random(f"hand over {cluster.seed}")
    faults = cluster.faults

    def hand_over_somewhere() -> None:
        for peer in cluster.peers:
            if peer.alive and peer.engine.raft.is_leader:
                cluster.happened["hand-over asked"] += 1
                hand_over(cluster, peer)

    def slow_disk() -> None:
        leaders = [p for p in cluster.peers if p.alive and p.engine.raft.is_leader]
        peer = rng.choice(leaders or cluster.peers)
        cluster.happened["slow disk"] += 1
        peer.slow_sync_us = rng.choice(SLOW_SYNCS_US)

        def mend() -> None:
            peer.slow_sync_us = 0

        cluster.after(rng.randrange(1, SLOW_MS_MAX), mend)

    def repeat(every_ms: int, act: Callable[[], None]) -> None:
        def again() -> None:
            if cluster.faults is faults:  # healed otherwise
                act()
                cluster.after(rng.expovariate(1 / every_ms), again)

        if every_ms:
            cluster.after(rng.expovariate(1 / every_ms), again)

    repeat(rng.choice((0, 0, 300, 2_000)), hand_over_somewhere)
    repeat(rng.choice((0, 0, 5_000)), slow_disk)

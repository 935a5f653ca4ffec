"""What goes wrong in a simulated cluster at moments of its own, as its faults say, and for as long
as they last: cuts, clogs, crashes, sleeps, clean stops, and what befalls disks and clocks.

Faults that meet a write, a message or a start are drawn where those happen.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Final

from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_space import empty, fill

CLOG_MS: Final = 1_500  # within which the links of some peers stand still, one after another
CLOGGED_MS: Final = 2_500  # within which they go on, in another order
WALL_STEP_MS: Final = 3_600_000


class Storm:
    """Begins at once; `SimCluster.heal` ends it."""

    def __init__(self, cluster: SimCluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._faults = faults = cluster.faults
        for every_ms, act in (
            (faults.crash_every_ms, self._crash),
            (faults.cut_every_ms, self._cut),
            (faults.clog_every_ms, self._clog),
            (faults.pause_every_ms, self._pause),
            (faults.suspend_every_ms, self._suspend),
            (faults.leave_every_ms, self._leave),
            (faults.damage_every_ms, self._damage),
            (faults.wipe_every_ms, self._wipe),
            (faults.rot_every_ms, self._rot),
            (faults.full_every_ms, self._fill),
            (faults.wall_step_every_ms, self._step_wall_clock),
        ):
            if every_ms:
                self._repeat(every_ms, act)

    def _repeat(self, every_ms: int, act: Callable[[], None]) -> None:
        cluster, rng = self._cluster, self._rng

        def again() -> None:
            if cluster.faults is self._faults:  # healed otherwise
                act()
                cluster.after(rng.expovariate(1 / every_ms), again)

        cluster.after(rng.expovariate(1 / every_ms), again)

    def _anybody(self) -> int:
        return self._rng.randrange(len(self._cluster.peers))

    # --- processes ---

    def _crash(self) -> None:
        cluster = self._cluster
        everybody = self._rng.random() < self._faults.crash_all
        number = self._anybody()
        cluster.happened["crash of all"] += everybody
        for peer in cluster.peers:
            if (everybody or peer.number == number) and cluster.crashes_here(1.0):
                cluster.crash(peer.number)

    def _pause(self) -> None:
        self._cluster.pause(self._anybody(), self._rng.randrange(1, self._faults.pause_ms_max))

    def _suspend(self) -> None:
        self._cluster.suspend(self._anybody(), self._rng.randrange(1, self._faults.pause_ms_max))

    def _leave(self) -> None:
        self._cluster.leave(self._anybody())

    # --- links ---

    def _cut(self) -> None:
        cluster, rng = self._cluster, self._rng
        kind = cluster.network.cut_at_random(self._faults.cuts)
        cluster.happened[f"cut: {kind}"] += 1
        if rng.random() < 0.7:
            cluster.after(rng.randrange(1, self._faults.cut_ms_max), cluster.network.mend)

    def _clog(self) -> None:
        """Some peers, one after another; free again in another order (FoundationDB's swizzle)."""
        cluster, rng = self._cluster, self._rng
        numbers = range(len(cluster.peers))
        for number in rng.sample(numbers, rng.randint(1, len(numbers))):
            self._clog_one(number, rng.randrange(CLOG_MS), CLOG_MS + rng.randrange(CLOGGED_MS))

    def _clog_one(self, number: int, from_ms: int, to_ms: int) -> None:
        cluster = self._cluster

        def clog() -> None:
            if cluster.faults is self._faults:
                cluster.network.clog(number)

        cluster.after(from_ms, clog)
        cluster.after(to_ms, lambda: cluster.network.unclog(number))

    # --- disks and clocks ---

    def _damage(self) -> None:
        """A disk loses one large result; its peer finds out when it looks."""
        blobs = self._cluster.peers[self._anybody()].blobs
        here = [digest for digest, is_here in blobs.items() if is_here]
        if here:
            self._cluster.happened["blobs damaged"] += 1
            blobs[self._rng.choice(here)] = False

    def _wipe(self) -> None:
        self._cluster.wipe(self._anybody())

    def _rot(self) -> None:
        self._cluster.rot(self._anybody())

    def _fill(self) -> None:
        """A disk is full for a while."""
        cluster, rng = self._cluster, self._rng
        peer = cluster.peers[self._anybody()]
        cluster.happened["disks full"] += 1
        fill(peer, rng)
        cluster.after(rng.randrange(1, self._faults.full_ms_max), partial(empty, peer))

    def _step_wall_clock(self) -> None:
        by_ms = self._rng.randint(-WALL_STEP_MS, WALL_STEP_MS)
        self._cluster.happened["wall clock stepped"] += 1
        self._cluster.peers[self._anybody()].step_wall_clock(by_ms)

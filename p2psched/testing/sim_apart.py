"""What happens in some seeds only, each drawn apart: all else of a seed is drawn as without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2psched.testing.sim_hooks import start_hooks
from p2psched.testing.sim_keys import KeyWork
from p2psched.testing.sim_leading import start_hand_overs
from p2psched.testing.sim_levels import start_upgrades
from p2psched.testing.sim_locks import LockUsers
from p2psched.testing.sim_queues import start_queues
from p2psched.testing.sim_stealing import Misplacing

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster


class Apart:
    """Of one seed."""

    def __init__(self, cluster: SimCluster, *, locks: int | None = None) -> None:
        """`locks`: callers that take some; None: drawn."""
        start_hand_overs(cluster)
        start_upgrades(cluster)
        start_hooks(cluster)
        self._keys = KeyWork(cluster)
        self._locks = LockUsers(cluster, locks)
        start_queues(cluster)
        Misplacing(cluster)

    def end(self) -> None:
        """Begin nothing more."""
        self._keys.end()
        self._locks.end()

    @property
    def is_busy(self) -> bool:
        return self._keys.is_busy or self._locks.is_busy

    def check_end(self) -> None:
        """All is done, and everybody knows the same."""
        self._keys.check_end()

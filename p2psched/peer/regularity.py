"""How often a leader looks whether its group needs a change: often while there are changes, and
seldom once it has been as it is for a while. Who is away for too long is so after seconds.
"""

from __future__ import annotations

from typing import Final

from p2psched.model.raft import Membership

REGULAR_MS: Final = 10_000  # without a change
SELDOM_MS: Final = 500  # between two looks then


class Regularity:
    """Of one member of the group."""

    def __init__(self) -> None:
        self._membership: Membership | None = None
        self._since_ms = 0  # the group is so
        self._looked_ms = 0

    def is_due(self, now_ms: int, membership: Membership) -> bool:
        """To look, now; taken as done."""
        if membership is not self._membership:
            self._membership, self._since_ms = membership, now_ms
        is_regular = now_ms - self._since_ms >= REGULAR_MS
        if is_regular and now_ms - self._looked_ms < SELDOM_MS:
            return False
        self._looked_ms = now_ms
        return True

"""What the ledger tells of peers' answers: how long tasks took from their grant to their result.

Only of jobs that choose a policy or peers: for all others nobody asks, and they are very many.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.policies.base import Measured
from p2psched.model.commands import Event, Grant, Granted, Recorded
from p2psched.model.ids import PeerId

GRANTS_MAX: Final = 65_536  # that are waited for; the oldest are forgotten
NEWEST_COUNT: Final = 0.2  # how much the newest result counts


class Measuring:
    """`now_ms` is ledger time, so all that is measured is of one clock."""

    def __init__(self) -> None:
        self.peers: dict[PeerId, Measured] = {}
        self._since: dict[Grant, int] = {}  # oldest first

    def on_event(self, event: Event, now_ms: int) -> None:
        if isinstance(event, Granted):
            self._since[event.grant] = now_ms
            if len(self._since) > GRANTS_MAX:
                del self._since[next(iter(self._since))]
        elif isinstance(event, Recorded):
            since_ms = self._since.get(event.grant)
            if since_ms is None:
                return
            took_ms = float(max(1, now_ms - since_ms))
            known = self.peers.get(event.peer)
            if known is not None:
                took_ms = known.response_ms + NEWEST_COUNT * (took_ms - known.response_ms)
            self.peers[event.peer] = Measured(took_ms, now_ms)

    def clear(self) -> None:
        self.peers.clear()
        self._since.clear()

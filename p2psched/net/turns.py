"""What clients may ask of a peer in one turn of its event loop.

Each connection that has something to read gets its share of a turn. With hundreds of them a turn
would take seconds, and what keeps a cluster together (heartbeats, acknowledgements, timers) comes
once in a turn. So all connections of clients together have a number of calls; what is beyond waits,
in the order it came, for the next turn, and in the end in the callers' sockets.
"""

from __future__ import annotations

import asyncio
from typing import Final

CALLS_A_TURN_MAX: Final = 256  # some 10 to 30 ms


class Turns:
    """Of one server, in its loop."""

    def __init__(self) -> None:
        self._taken = 0
        self._ends: asyncio.Handle | None = None

    @property
    def is_over(self) -> bool:
        return self._taken >= CALLS_A_TURN_MAX

    def take(self) -> None:
        self._taken += 1
        if self._ends is None:
            self._ends = asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._taken, self._ends = 0, None

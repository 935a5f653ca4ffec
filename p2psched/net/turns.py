"""What clients may ask of a peer in one turn of its event loop, and in which order.

Each connection that has something to read gets its share of a turn. With hundreds of them a turn
would take seconds, and what keeps a cluster together (heartbeats, acknowledgements, timers) comes
once in a turn. So all connections of clients together have a number of calls, and of bytes; what is
beyond waits for the next turn, and in the end in the callers' sockets.

Who waits stands in one line, and takes a few calls when it is its turn: a connection that never
runs out of calls would else be the first in each turn, and the last one wait for seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from p2psched.model.limits import MIB

CALLS_A_TURN_MAX: Final = 128  # some 5 to 15 ms
# What is decoded in one turn: a few KiB of compressed frames can hold much.
BYTES_A_TURN_MAX: Final = 4 * MIB
CALLS_AT_ONCE_MAX: Final = 16  # of one connection: then it is the next one's turn


class Turns:
    """Of one server, in its loop."""

    def __init__(self) -> None:
        self._calls = self._bytes = 0
        self._ends: asyncio.Handle | None = None
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def is_over(self) -> bool:
        return self._calls >= CALLS_A_TURN_MAX or self._bytes >= BYTES_A_TURN_MAX

    @property
    def must_wait(self) -> bool:
        """Whoever has just come: there are others in the line."""
        return bool(self._waiting) or self.is_over

    def take(self, size: int) -> None:
        """A call of so many bytes."""
        self._calls += 1
        self._bytes += size
        self._see_to_the_end()

    def wait(self, go_on: Callable[[], None]) -> None:
        """`go_on` is called once, when it is its turn."""
        self._waiting.append(go_on)
        self._see_to_the_end()

    def _see_to_the_end(self) -> None:
        if self._ends is None:
            self._ends = asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        """Of this turn. The next one begins with who waits."""
        self._calls = self._bytes = 0
        self._ends = None
        while self._waiting and not self.is_over:
            before = self._calls
            self._waiting.popleft()()
            self._calls = max(self._calls, before + 1)  # who has nothing to ask is looked at, too
        if self._waiting:
            self._see_to_the_end()

"""What a host tells its peer: results, packed.

Results leave when FLUSH_NS has passed since the last ones left, when they are many bytes, and at
the end of a batch, unless the host has more batches to run: then HOLD_NS later. So ten thousand
quick tasks cost a few messages, ten quick batches one, and a task that took long is reported at
once. What waits meanwhile stands in the shared notes, where the peer can see it.
"""

from __future__ import annotations

import socket
import time
from typing import Final

from . import frames
from .shared import Pieces, Shared

FLUSH_NS: Final = 25_000_000
# A program costs so much more than a call that fewer are in one message; and each message of a
# peer becomes an entry of the ledger, which costs the cluster as much as ten programs.
PROGRAMS_FLUSH_NS: Final = 100_000_000
HOLD_NS: Final = 2_000_000


class Reporter:
    """Use per batch: `open_batch`, then `begin` and `finish` for each task, then `close_batch`."""

    def __init__(
        self,
        sock: socket.socket,
        shared: Shared,
        *,
        flush_ns: int = FLUSH_NS,
        hold_ns: int = HOLD_NS,
    ) -> None:
        self._flush_ns = flush_ns
        self._hold_ns = hold_ns
        self._sock = sock
        self._shared = shared
        self._pieces = Pieces()
        self._closed: list[bytes] = []  # frames of batches that are over
        self._batch = 0
        self._started_ns = 0
        self.flushed_ns = 0

    def open_batch(self, batch: int) -> None:
        assert not self._pieces, "the batch before was closed"
        self._batch = batch
        self._shared.open_batch(batch)
        if not self._closed:
            self.flushed_ns = time.monotonic_ns()

    def begin(self, index: int) -> None:
        self._started_ns = time.monotonic_ns()
        self._shared.begin(index, self._started_ns)

    def give_back(self) -> None:
        """The task that was begun has not run: it and what is behind it may run again. Results so
        far are sent. The host ends after this."""
        self._shared.unbegin()
        self.flush()

    def finish(self, index: int, cause: int, item: bytes) -> None:
        now_ns = time.monotonic_ns()
        busy_us = (now_ns - self._started_ns) // 1000
        full = self._shared.finish(index, cause, busy_us, item)
        self._pieces.add(index, cause, busy_us, item)
        if full or now_ns - self.flushed_ns > self._flush_ns:
            self.flush()

    @property
    def flush_at_ns(self) -> int | None:
        """When results leave that wait; None if there are none."""
        return self.flushed_ns + self._flush_ns if self._pieces or self._closed else None

    def flush(self) -> None:
        """Send what waits while a batch is open."""
        self._closed.append(frames.results(self._batch, self._pieces.take(), over=False))
        self.send()

    def close_batch(self, *, ended: int = -1, hold: bool = False) -> None:
        """Say that the batch is over, with what waits. `ended`: a task that was stopped. `hold`:
        others follow at once, and it may leave with them; then `send` behind the last one."""
        self._closed.append(
            frames.results(self._batch, self._pieces.take(), over=True, ended=ended)
        )
        if not hold or time.monotonic_ns() - self.flushed_ns > self._hold_ns:
            self.send()

    @property
    def holds_batches(self) -> bool:
        return bool(self._closed)

    def send(self) -> None:
        """All that waits, of batches that are over."""
        self._sock.sendall(b"".join(self._closed))
        self._closed.clear()
        self._shared.sent()
        self.flushed_ns = time.monotonic_ns()

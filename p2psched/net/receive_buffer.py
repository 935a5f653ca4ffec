"""Bytes that came and are not decoded yet, in one piece of memory that is used again and again.

A fresh buffer for each read costs more than the read: the system hands out its pages zeroed, one
fault at a time. So there is one buffer a connection, small while messages are small, as large as
the largest frame while large ones come, and small again when they have stopped.
"""

from __future__ import annotations

from typing import Final

from p2psched.model.limits import KIB

SMALL_BYTES: Final = 32 * KIB  # of a connection that says little
READ_BYTES_MIN: Final = 4 * KIB  # less room than this is not worth a read
READ_AHEAD_BYTES: Final = (
    64 * KIB
)  # besides a large frame: what follows it comes with the same read
QUIET_MAX: Final = 16  # small frames in a row after which a large buffer is given back


class ReceiveBuffer:
    """What is pending is `data[start:end]`, and `view` of the same. Only `room` may move it."""

    __slots__ = ("_quiet", "data", "end", "start", "view")

    def __init__(self) -> None:
        self._replace(SMALL_BYTES)
        self.start = self.end = 0
        self._quiet = 0

    def __len__(self) -> int:
        return self.end - self.start

    def room(self, wanted: int) -> memoryview:
        """Free bytes behind what is pending: at least READ_BYTES_MIN and at least `wanted`."""
        needed = max(wanted + (READ_AHEAD_BYTES if wanted > SMALL_BYTES else 0), READ_BYTES_MIN)
        if len(self.data) - self.end < needed:
            self._make_room(needed)
        return self.view[self.end :]

    def _make_room(self, needed: int) -> None:
        pending = len(self)
        kept = self.data[self.start : self.end]
        if len(self.data) < pending + needed:
            self._replace(pending + needed)  # the old one may still be looked at
        self.data[:pending] = kept
        self.start, self.end = 0, pending

    def drop(self, size: int) -> None:
        """The first `size` bytes are done with."""
        self.start += size
        self._quiet = 0 if size > SMALL_BYTES else self._quiet + 1
        if self.start == self.end:
            self.start = self.end = 0
            if self._quiet > QUIET_MAX and len(self.data) > SMALL_BYTES:
                self.clear()

    def clear(self) -> None:
        self._replace(SMALL_BYTES)
        self.start = self.end = 0
        self._quiet = 0

    def _replace(self, size: int) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)

"""What a worker is told to run: a RUN frame of functions, and the ticket that goes with it.

A worker is handed several short batches ahead, so that one message brings many of them. Which of
them have begun must be known exactly all the same. So each batch has a ticket in a pipe that both
sides can read: a worker takes the ticket before it begins the batch; the peer takes tickets back
whose batches shall not begin there. The kernel gives each to one of the two. What has lost its
ticket is skipped.

A batch of longer tasks has a ticket for each leg of it: some tasks that follow one another. So its
end can be taken back, too, while its first tasks run.

Tickets and frames are in one order, and a ticket is written before its frame. A batch that was
taken back and is handed over anew gets another ticket and another frame; its old frame is skipped
or stands for the new one, which is then skipped: they say the same.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from . import frames

# batch, function, attempt, pieces, tasks of a leg, first part or not, last or not, bytes of job and
# of fence
_HEAD = struct.Struct("<QIIII??BB")
_PIECE = struct.Struct("<QQI")  # start, stop, bytes of arguments
_TICKET = struct.Struct("<Q")
LEGS_MAX: Final = 64  # of a batch
# All that a pipe holds, and far more than a host ever has.
_TICKETS_READ: Final = 8192


class Order(NamedTuple):
    """A batch of calls, or a part of one with many arguments."""

    batch: int
    function: int  # as the FUNCTION frame calls it
    attempt: int
    first: bool  # of the parts of its batch: this one needs the ticket
    last: bool
    job: str
    fence: str
    pieces: Sequence[tuple[int, int, bytes]]  # start, stop, a chunk of arguments
    leg: int = 0  # tasks that one ticket is good for; 0: all


def pack(order: Order) -> bytes:
    """A RUN frame."""
    job, fence = order.job.encode(), order.fence.encode()
    counts = len(order.pieces), order.leg, order.first, order.last, len(job), len(fence)
    parts = [_HEAD.pack(order.batch, order.function, order.attempt, *counts), job, fence]
    for start, stop, data in order.pieces:
        parts += (_PIECE.pack(start, stop, len(data)), data)
    return frames.frame(frames.RUN, *parts)


def unpack(body: bytes) -> Order:
    """The other end of `pack`."""
    batch, function, attempt, count, leg, *flags = _HEAD.unpack_from(body)
    first, last, job_size, fence_size = flags
    job_end = _HEAD.size + job_size
    position = job_end + fence_size
    job, fence = body[_HEAD.size : job_end].decode(), body[job_end:position].decode()
    pieces = []
    for _ in range(count):
        start, stop, size = _PIECE.unpack_from(body, position)
        position += _PIECE.size
        pieces.append((start, stop, body[position : position + size]))
        position += size
    return Order(batch, function, attempt, first, last, job, fence, pieces, leg)


class Walk:
    """Through the legs of a batch that has its first ticket."""

    def __init__(self, tickets: Tickets, batch: int, leg: int) -> None:
        self._tickets = tickets
        self._batch = batch
        self._leg = self._left = leg

    def may_begin(self) -> bool:
        """Before each task. False: it and all behind it were taken back."""
        if not self._leg:
            return True
        if not self._left:
            if not self._tickets.take(self._batch):
                return False
            self._left = self._leg
        self._left -= 1
        return True


class Tickets:
    """The host's side."""

    def __init__(self, descriptor: int) -> None:
        """The reading end, which never blocks."""
        self._descriptor = descriptor
        self._next = -1

    def take(self, batch: int) -> bool:
        """True if the batch may begin here, and then the peer can't take it back."""
        if self._next < 0:
            try:
                (self._next,) = _TICKET.unpack(os.read(self._descriptor, _TICKET.size))
            except BlockingIOError:
                return False
        if self._next != batch:
            return False
        self._next = -1
        return True


class Desk:
    """The peer's side."""

    def __init__(self) -> None:
        """Raises OSError without descriptors."""
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def give(self, batch: int, legs: int = 1) -> None:
        """Before the frame is sent. Few are given at a time, so the pipe never fills."""
        assert legs <= LEGS_MAX, "a batch has few legs"
        os.write(self._writer, _TICKET.pack(batch) * legs)

    def take_back(self) -> dict[int, int]:
        """All batches of which something has not begun, in order, and how many of their last legs:
        they won't, there."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.reader, _TICKETS_READ * _TICKET.size)
        return Counter(batch for (batch,) in _TICKET.iter_unpack(data))

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)

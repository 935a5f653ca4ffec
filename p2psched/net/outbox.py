"""What waits to be written on one connection.

Frames of one loop iteration leave in one write. Bound: the transport's high-water mark and
FLUSH_BYTES for those who wait for room, LINK_BACKLOG_BYTES_MAX for those who would rather drop.
"""

from __future__ import annotations

import asyncio
from typing import Final

from p2psched.model.limits import KIB, LINK_BACKLOG_BYTES_MAX
from p2psched.net.frames import Frame

# Beyond this, frames leave at once and not at the end of the iteration.
FLUSH_BYTES: Final = 256 * KIB
JOINED_BYTES_MAX: Final = 64 * KIB
# What may wait in the transport before `wait_room` waits and `put_nowait` starts to count.
_WRITE_HIGH_BYTES: Final = 256 * KIB


class Outbox:
    """The way out of one connection. `attach` comes first, `detach` when the transport is gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._frames: list[Frame] = []
        self._frames_bytes = 0
        self._flush_due = False
        self._paused = False
        self._waiting: list[asyncio.Future[None]] = []
        self.sent_bytes = 0
        self.sent_count = 0
        self.dropped_count = 0

    def attach(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        self._transport = transport

    def detach(self) -> None:
        """Drop what is left and wake who waits for room."""
        self._transport = None
        self._frames, self._frames_bytes = [], 0
        self.resume()

    @property
    def backlog_bytes(self) -> int:
        held = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self._frames_bytes + held

    @property
    def is_full(self) -> bool:
        """True while `wait_room` waits."""
        return self._paused

    def put(self, frame: Frame) -> None:
        """Send, whatever waits already. For those who asked for room before."""
        self._frames.append(frame)
        self._frames_bytes += len(frame)
        self.sent_count += 1
        self.sent_bytes += len(frame)
        if self._frames_bytes >= FLUSH_BYTES:
            self.flush()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def put_nowait(self, frame: Frame) -> bool:
        """Send, or drop and return False if the backlog is full."""
        # The backlog can only be large while the transport said so; asking it is not free.
        if self._paused and self.backlog_bytes + len(frame) > LINK_BACKLOG_BYTES_MAX:
            self.dropped_count += 1
            return False
        self.put(frame)
        return True

    async def wait_room(self) -> None:
        """Until the transport takes more, or is gone."""
        while self._paused:
            room: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(room)
            try:
                await room
            finally:
                if room.cancelled():
                    self._waiting = [other for other in self._waiting if other is not room]

    def flush(self) -> None:
        """Write now what was put in this loop iteration."""
        frames, size = self._frames, self._frames_bytes
        self._frames, self._frames_bytes = [], 0
        self._flush_due = False
        if frames and self._transport is not None and not self._transport.is_closing():
            # Small ones leave in one piece; large ones are not copied to be put together.
            if size <= JOINED_BYTES_MAX and len(frames) > 1:
                frames = [b"".join(frames)]
            for frame in frames:
                self._transport.write(frame)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for room in waiting:
            if not room.done():
                room.set_result(None)

"""The peer's end of a socket to a helper process: frames in, frames out, never blocking.

Plain `add_reader` on a socket rather than a transport, because it works at once (a batch can leave
from inside `start`) and because what a dead helper sent can be drained before its end is judged.
What waits to be sent is bounded by the pool, which gives a host one batch at a time, or a few that
are small.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from p2psched.run.host import frames

# A buffer of 128 KiB or more is mapped anew for each read: that took 18 us, more than all else.
RECEIVE_BYTES: Final = 64 * 1024
# One turn of the loop takes at most this many reads, so that one host starves nobody.
READS_MAX: Final = 16

OnFrame = Callable[[int, bytes], None]


class Channel:
    """`on_frame` gets each frame; `on_closed` is called once, when the other side is gone or has
    sent what is no frame."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        on_frame: OnFrame,
        on_closed: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._reader = frames.Reader()
        self._waiting = bytearray()
        self._soon: list[bytes] = []
        self._closed = False
        loop.add_reader(sock.fileno(), self._read, READS_MAX)

    def send(self, data: bytes) -> None:
        """Now if there is room, else as soon as there is. Nothing happens if it is closed."""
        if self._closed:
            return
        if self._soon:
            data = b"".join((*self._soon, data))
            self._soon.clear()
        if not self._waiting:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the reader learns of the end, in order
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._socket.fileno(), self._write)
        self._waiting += data

    def send_soon(self, data: bytes) -> None:
        """With all that is sent in this turn of the loop: one message for many."""
        if not self._soon:
            self._loop.call_soon(self._send_rest)
        self._soon.append(data)

    def _send_rest(self) -> None:
        if self._soon:
            self.send(b"")

    def send_descriptors(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """Send a small frame with descriptors, or say that it is not possible now."""
        if self._closed or self._waiting:
            return False
        try:
            return socket.send_fds(self._socket, [data], descriptors) == len(data)
        except OSError:
            return False

    def drain(self) -> None:
        """Take everything that has arrived. For a helper that is dead: then it is all there is."""
        while not self._closed and self._read_once():
            pass

    def close(self) -> None:
        """Stop; `on_closed` is not called any more."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _read(self, reads_max: int) -> None:
        for _ in range(reads_max):
            if self._closed or not self._read_once():
                return

    def _read_once(self) -> bool:
        """One read. True if there may be more."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        try:
            for kind, body in self._reader.feed(data):
                self._on_frame(kind, body)
                if self._closed:
                    return False
        except ValueError:
            data = b""
        if not data:
            self.close()
            self._on_closed()
        return len(data) == RECEIVE_BYTES

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._waiting)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._waiting)
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._socket.fileno())

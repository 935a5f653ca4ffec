"""What a program writes: two pipes, what is kept of them, and files that a tail can follow.

The pipes outlive a program if nobody else can hold them, so that thousands of quick programs share
two. A program that ends within SHOW_NS gets no files: nobody could have followed it. Nothing here
waits for the end of a stream: a program is over when its process is.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Final

from ...model.limits import OUTPUT_FILE_BYTES_MAX  # noqa: TID252 - see shared.py
from . import capture

SHOW_NS: Final = 20_000_000
# Before that, at most about so much waits in memory; a program that writes more is shown at once.
PENDING_BYTES_MAX: Final = 256 * 1024

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Stream:
    """One of the two.

    Its file holds the first OUTPUT_FILE_BYTES_MAX bytes; what comes later is kept, as far as it
    is kept, by the capture only.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._path = ""
        self.capture = capture.Capture()
        self.reader = -1
        self.writer = -1  # for the program; ours stays open, so there is never an end to read
        self._file = -1
        self._room = OUTPUT_FILE_BYTES_MAX
        self.pending = bytearray()

    def open(self, folder: str) -> bool:
        """Be ready for a program in `folder`. True if the pipe is a new one. Raises OSError."""
        self._path = f"{folder}/{self._name}"
        if self.capture.total:
            self.capture = capture.Capture()
            self._room = OUTPUT_FILE_BYTES_MAX
        if self.reader >= 0:
            return False
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        return True

    def read(self, *, show: bool) -> None:
        """Take what is there now."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.reader, capture.READ_BYTES)
            self.capture.add(data)
            self.pending += data
            if show or len(self.pending) > PENDING_BYTES_MAX:
                self.show()

    def drain(self) -> None:
        """The rest, but no more than a bound: the writer may be a stranger that never stops."""
        capture.drain(self.reader, self.capture)

    def end(self) -> None:
        """Nobody needs to follow it any more."""
        self.pending.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        self.end()
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)
        self.reader = self.writer = -1

    def show(self) -> None:
        """Write what waits to the file. Best effort: a full disk costs the live view, never the
        task."""
        if self._room > 0 and self.pending:
            with contextlib.suppress(OSError):
                if self._file < 0:
                    self._file = os.open(self._path, _NEW, 0o600)
                os.write(self._file, self.pending[: self._room])
            self._room -= len(self.pending)
        self.pending.clear()


class Streams:
    """Both, registered with the poll of their spawner while they are open."""

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._ready = select.poll()  # only these two
        self.stdout = Stream("stdout")
        self.stderr = Stream("stderr")
        self._show_ns = 0

    def open(self, folder: str) -> None:
        """Be ready for a program in `folder`. Raises OSError; then `close`."""
        self._show_ns = time.monotonic_ns() + SHOW_NS
        for stream in (self.stdout, self.stderr):
            if stream.open(folder):
                self._poll.register(stream.reader, select.POLLIN)
                self._ready.register(stream.reader, select.POLLIN)

    def read(self, descriptor: int) -> bool:
        """Take what one of the two has. False if the descriptor is neither's."""
        for stream in (self.stdout, self.stderr):
            if stream.reader == descriptor:
                stream.read(show=time.monotonic_ns() >= self._show_ns)
                return True
        return False

    @property
    def due_ns(self) -> int | None:
        """When `show` is to be called, if it is."""
        return self._show_ns if self.stdout.pending or self.stderr.pending else None

    def show(self) -> None:
        """Put what was read into the files."""
        self.stdout.show()
        self.stderr.show()

    def drain(self) -> None:
        """The rest of what a program wrote that has ended."""
        if self._ready.poll(0):
            self.stdout.drain()
            self.stderr.drain()

    def leave(self, *, is_alone: bool) -> None:
        """The program is over. `is_alone`: no process that it started can still hold the pipes."""
        if is_alone and not self._ready.poll(0):
            self.stdout.end()
            self.stderr.end()
        else:
            self.close()

    def close(self) -> None:
        for stream in (self.stdout, self.stderr):
            if stream.reader >= 0:
                self._poll.unregister(stream.reader)
                self._ready.unregister(stream.reader)
            stream.close()

    @property
    def is_empty(self) -> bool:
        """True if the program wrote nothing."""
        return not (self.stdout.capture.total or self.stderr.capture.total)

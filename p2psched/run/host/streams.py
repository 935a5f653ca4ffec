"""What a program writes: two pipes, what its result brings of them, and files (`spool`) that a tail
can follow and that stay if the result can't bring all of it.

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

from ...model.limits import OUTPUT_BYTES_MAX  # noqa: TID252 - see shared.py
from . import capture
from .spool import Spool

SHOW_NS: Final = 20_000_000
# Before that, at most about so much waits in memory; a program that writes more is shown at once.
PENDING_BYTES_MAX: Final = 256 * 1024


class Stream:
    """One of the two."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spool = Spool()
        self.capture = capture.Capture()
        self.reader = -1
        self.writer = -1  # for the program; ours stays open, so there is never an end to read
        self.pending = bytearray()

    def open(self, folder: str) -> bool:
        """Be ready for a program in `folder`. True if the pipe is a new one. Raises OSError."""
        self._spool.open(f"{folder}.{self._name}")
        if self.capture.total:
            self.capture = capture.Capture()
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
        for _ in range(capture.READS_MAX):
            before = self.capture.total
            self.read(show=False)
            if self.capture.total == before:
                return

    def end(self, *, keep: bool = False) -> None:
        """Nobody needs to follow it any more."""
        if keep:
            self.show()
        self.pending.clear()
        self._spool.end(keep=keep)

    def close(self) -> None:
        self.end()
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)
        self.reader = self.writer = -1

    def show(self) -> None:
        """Write what waits to the file."""
        if self.pending:
            self._spool.write(self.pending)
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

    def leave(self, *, is_alone: bool, is_told: bool) -> None:
        """The program is over. `is_alone`: no process that it started can still hold the pipes.
        What its result can't bring is kept, and all of it if it has none (not `is_told`)."""
        for stream in (self.stdout, self.stderr):
            if stream.capture.total > (OUTPUT_BYTES_MAX if is_told else 0):
                stream.end(keep=True)
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

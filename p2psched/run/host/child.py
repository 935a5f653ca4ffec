"""One program that runs: how it is started, signalled, and taken to its grave."""

from __future__ import annotations

import os
import signal
from typing import Final

from . import tree
from .guard import Guard, Startable
from .shared import STARTING, Shared
from .streams import Streams

# Python, or whoever lends limits, ignores them; programs don't.
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGXCPU)


class Child:
    """A program that runs."""

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1
        self.ended_as = -1  # a cause, if it was ended by us
        self.why = ""  # if that says more than the cause
        self.stopped = False  # with its batch
        self.kill_ns: int | None = None
        self.leaves_nothing = False  # however it ends
        self.strangers: list[int] = []  # that earlier programs have left
        self.guard: Guard | None = None  # of one that has limits

    def spawn(self, order: Startable, shared: Shared, output: Streams) -> None:
        """Raises OSError or NotStartable; then nothing is left behind but `close`."""
        shared.note_group(STARTING)
        try:
            if order.bounds is None:
                self.pid = _spawn(order.program(), order.argv, order, output)
            else:
                self.guard = Guard(order.bounds, self.strangers)
                self.pid = self.guard.start(
                    order, lambda program, argv: _spawn(program, argv, order, output)
                )
        except BaseException:
            shared.note_group(0)
            raise
        shared.note_group(self.pid)  # at once: from here on the starter can end it
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:  # no descriptors left: nobody could follow it
            self.reap()
            raise

    def end(self, cause: int, why: str, now_ns: int, grace_ns: int) -> None:
        """Its attempt ends by this cause, whatever it does about it."""
        self.ended_as, self.why = cause, why
        self.terminate(now_ns, grace_ns)

    def terminate(self, now_ns: int, grace_ns: int) -> None:
        self.signal(signal.SIGTERM, whole=True)
        if self.kill_ns is None:
            self.kill_ns = now_ns + grace_ns

    def signal(self, number: int, *, whole: bool = False) -> None:
        """To its group, or to all that it has started, whatever that calls itself. It is not
        reaped yet, so the number is still its own."""
        if whole:
            tree.signal_all(os.getpid(), number, spared=[*self.strangers, self.pid])
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            os.kill(self.pid, number)

    def reap(self) -> int:
        """End what it left, and take its exit code (or -signal)."""
        is_ours = self.ended_as >= 0 or self.stopped or self.guard is not None
        is_ours = is_ours or self.leaves_nothing
        self.signal(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        if is_ours:
            tree.end_all(os.getpid(), spared=self.strangers)
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.guard is not None:
            self.guard.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)


def _spawn(program: str, argv: list[str], order: Startable, output: Streams) -> int:
    return os.posix_spawn(
        program,
        argv,
        order.environment,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output.stdout.writer, 1),
            (os.POSIX_SPAWN_DUP2, output.stderr.writer, 2),
        ),
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )

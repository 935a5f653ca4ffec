"""A host (worker or spawner) as its starter has it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Final

from . import frames, tree, watch
from .bounds import Bounds
from .groups import Group
from .shared import STARTING, Shared
from .watched import Watched

LOOK_S: Final = watch.LOOK_NS / 1e9
STOPS_MAX: Final = 50  # looks, a millisecond apart, whether a host has stopped


class Host:
    """A forked process, seen from the starter."""

    def __init__(self, *, number: int, pid: int, shared: Shared, scratch: str, folder: str) -> None:
        self.number = number
        self.pid = pid
        self.shared = shared
        self.scratch = scratch
        self.pidfd = os.pidfd_open(pid)
        self.watched = Watched(shared, folder)
        self.pipes: tuple[int, ...] = ()
        self.socket: socket.socket | None = None
        self.kill_at_s: float | None = None
        self.look_at_s: float | None = None  # whether its task has too much of something
        self.is_leased = False  # what it runs is ended where its lease is over
        self.lapsed = False  # it was
        self._bounds: Bounds | None = None  # of its tasks, if it is a worker
        self._group: Group | None = None
        self._watch: watch.Watch | None = None
        self._verdict = (0, "")

    def bind(self, bounds: Bounds | None, group: Group | None) -> None:
        """It is a worker whose tasks have these limits, and binds itself as far as it can."""
        if bounds is not None:
            self._bounds = bounds
            self._group = group
            self._watch = watch.of(bounds, self.pid, group=group)
            self.look_at_s = None if self._watch is None else time.monotonic() + LOOK_S

    def has_too_much(self, now_s: float) -> bool:
        """Of what its limits are for. If not, it is to be looked at again later."""
        assert self._watch is not None
        if self.shared.is_running():
            self._verdict = self._watch.look()
        self.look_at_s = None if self._verdict[1] else now_s + LOOK_S
        return self.look_at_s is None

    def end_lapsed(self) -> None:
        """End all that it runs, if the lease on that is over. Whoever owned it may be dead, or
        stand still."""
        if not self.lapsed and self.shared.is_lapsed():
            self.lapsed = True
            tree.signal_all(self.pid, signal.SIGKILL)  # daemons of a program, too
            self.signal(signal.SIGKILL)

    def verdict(self, code: int) -> dict[str, int | str]:
        """What its item says besides, if a limit has ended it."""
        if self.lapsed:
            return {frames.LAPSED: 1}
        if self._bounds is None:
            return {}
        cause, text = self._verdict
        if not text and self._group is not None and self._group.was_short_of_memory():
            cause, text = frames.OOM, self._bounds.memory_story()
        if not text:
            text = self._bounds.story(code)
            return {"message": text} if text else {}
        return {"message": text, "ended_as": cause}

    def signal(self, number: int) -> None:
        """To its whole group, and to that of the program that it runs. Of a worker, to all that
        descends from it, too."""
        if self.pipes:
            tree.signal_all(self.pid, number)
        if self.shared.group == STARTING:
            self._end_unknown()
        # The leader may not have made its group yet, or not be in it alone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        for group in {self.pid, self.shared.group}:
            with contextlib.suppress(ProcessLookupError, PermissionError, OverflowError):
                if group > 1:
                    os.killpg(group, number)

    def _end_unknown(self) -> None:
        """A program is there, or is coming, whose number the host has not noted yet."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
        for _ in range(STOPS_MAX):
            state, children = tree.state_of(self.pid), tree.children(self.pid)
            for child in children:
                for end in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        end(child, signal.SIGKILL)
            if children or state in b"TZX":
                break
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        os.close(self.pidfd)
        if self._group is not None:
            self._group.end()
        for descriptor in self.pipes:
            os.close(descriptor)
        if self.socket is not None:
            self.socket.close()
        self.shared.close()

"""Keeps one program within the limits of its job: starts it bound, looks at it, and says whether a
limit was what ended it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection
from typing import Protocol

from . import bounds, frames, groups, sandbox, watch
from .checkpoint import FOLDER_VARIABLE

Verdict = tuple[int, str]  # a cause and a text; no text: no limit ended it
_NONE: Verdict = (frames.SIGNAL, "")


class Startable(Protocol):
    """What a program is started from."""

    argv: list[str]
    environment: dict[bytes, bytes]
    bounds: bounds.Bounds | None
    means: dict[str, object]  # what this peer has, as `run/means.py` says
    folder: str
    cwd: str | None

    def program(self) -> str: ...


class Guard:
    def __init__(self, limits: bounds.Bounds, strangers: Collection[int]) -> None:
        """`strangers`: processes of earlier programs, which are not this one's."""
        self._bounds = limits
        self._strangers = strangers
        self._group: groups.Group | None = None
        self._watch: watch.Watch | None = None
        self.due_ns: int | None = None  # when to look
        self._verdict = _NONE

    def start(self, order: Startable, spawn: Callable[[str, list[str]], int]) -> int:
        """Spawn the program, bound. Its number. Raises what `program` does, OSError, ValueError."""
        limits, program, argv = self._bounds, order.program(), order.argv
        if limits.sandbox:
            saved = order.environment.get(FOLDER_VARIABLE.encode())
            own = [order.folder, *([os.fsdecode(saved)] if saved else [])]
            argv = sandbox.wrapped(argv, program, order.means, limits, own=own, cwd=order.cwd)
            program = argv[0]
        group = self._group = groups.of(order.means, f"program-{os.getpid()}", limits)
        self._watch = watch.of(limits, os.getpid(), group=group, alone=True, spared=self._strangers)
        with bounds.Lent(limits.limits()) as lent, group or contextlib.nullcontext():
            pid = spawn(program, argv)
            lent.fix(pid)
        if self._watch is not None:
            self.due_ns = time.monotonic_ns() + watch.LOOK_NS
        return pid

    def look(self, now_ns: int) -> bool:
        """True if it has too much, and must be ended."""
        if self._watch is None or self.due_ns is None or now_ns < self.due_ns:
            return False
        self._verdict = self._watch.look()
        self.due_ns = None if self._verdict[1] else now_ns + watch.LOOK_NS
        return self.due_ns is None

    def verdict(self, code: int) -> Verdict:
        """Once it has ended so."""
        if self._verdict[1]:
            return self._verdict
        if code and self._group is not None and self._group.was_short_of_memory():
            return frames.OOM, self._bounds.memory_story()
        return frames.SIGNAL, self._bounds.story(code)

    def close(self) -> None:
        """Nothing of it is left."""
        if self._group is not None:
            self._group.end()
            self._group = None

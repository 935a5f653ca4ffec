"""What one task may use, as its host knows it, and how a process is bound to it.

Limits of the kernel bind one process, and each one that it starts by itself. What bounds a whole
task is a control group, where there is one (`groups`), or whoever looks at it (`watch`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from typing import Final

SIGNAL_BASE: Final = 128
MIB: Final = 1024 * 1024
# A task is ended, with the right cause, once it has too much; this is for one that takes more
# before anybody looks. Memory that is asked for and not used counts here, too.
SLACK_BYTES: Final = 256 * MIB


Limit = tuple[int, int, int]  # kind, soft, hard


class Bounds:
    """Limits of a task. None: as its peer has it."""

    def __init__(self, words: Mapping[str, object]) -> None:
        self.memory = _number(words, "memory")
        self.files = _number(words, "files")
        self.processes = _number(words, "processes")
        self.cpu_s = _number(words, "cpu_s")
        self.file_size = _number(words, "file_size")
        self.core = _number(words, "core")
        self.own_home = bool(words.get("own_home"))
        self.sandbox = str(words.get("sandbox") or "")
        self.network = bool(words.get("network", True))

    def limits(self) -> list[Limit]:
        """Of a process."""
        import resource  # noqa: PLC0415 - most hosts never need it, and each would copy it

        found: list[Limit] = []
        if self.memory is not None:
            most = 2 * self.memory + SLACK_BYTES
            found.append((resource.RLIMIT_DATA, most, most))
        if self.files is not None:
            found.append((resource.RLIMIT_NOFILE, self.files, self.files))
        if self.cpu_s is not None:  # a signal that can be caught, then one that can't
            found.append((resource.RLIMIT_CPU, self.cpu_s, self.cpu_s + 1))
        if self.file_size is not None:
            found.append((resource.RLIMIT_FSIZE, self.file_size, self.file_size))
        if self.core is not None:
            found.append((resource.RLIMIT_CORE, self.core, self.core))
        return [_within(*each, resource.getrlimit(each[0])[1]) for each in found]

    def bind_worker(self, folder: str) -> None:
        """A process that runs one task after another in this folder."""
        import resource  # noqa: PLC0415 - as above

        for kind, soft, hard in self.limits():
            if kind != resource.RLIMIT_CPU:  # that of each call: see `renew_cpu`
                resource.setrlimit(kind, (soft, hard))
        if self.own_home:
            os.environ["HOME"] = folder

    def renew_cpu(self) -> None:
        """The next task has all of its processor time before it."""
        import resource  # noqa: PLC0415 - as above

        if self.cpu_s is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            soft = int(time.process_time()) + 1 + self.cpu_s
            soft = soft if hard < 0 else min(soft, hard)
            resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))

    def story(self, code: int) -> str:
        """Why a signal ended a task, if that was a limit; else nothing."""
        signal_number = -code
        if self.sandbox and code > SIGNAL_BASE:  # as a shell says it
            signal_number = code - SIGNAL_BASE
        if signal_number == signal.SIGXCPU and self.cpu_s is not None:
            return f"used up its limit of {self.cpu_s} s of processor time"
        if signal_number == signal.SIGXFSZ and self.file_size is not None:
            return f"wrote a file over its limit of {self.file_size:,} bytes"
        return ""

    def memory_story(self) -> str:
        """What is told of a task that the kernel has ended for its memory."""
        return f"took more memory than its limit of {self.memory or 0:,} bytes"


def _within(kind: int, soft: int, hard: int, most: int) -> Limit:
    """Limits that the peer has itself stay if they are lower."""
    return (kind, soft, hard) if most < 0 else (kind, min(soft, most), min(hard, most))


def _number(words: Mapping[str, object], name: str) -> int | None:
    value = words.get(name)
    if value is not None and not isinstance(value, int):
        raise ValueError(f"not a number: {value!r}")
    return value


class Lent:
    """While it is entered this process has the soft limits of a task, for what it spawns."""

    def __init__(self, limits: list[Limit]) -> None:
        self._limits = limits
        self._before: list[Limit] = []

    def __enter__(self) -> Lent:
        """Raises OSError, ValueError."""
        import resource  # noqa: PLC0415 - as above

        signal.signal(signal.SIGXCPU, signal.SIG_IGN)  # our own time may be more than a task's
        for kind, soft, _ in self._limits:
            mine, most = resource.getrlimit(kind)
            resource.setrlimit(kind, (soft, most))
            self._before.append((kind, mine, most))
        return self

    def __exit__(self, *_: object) -> None:
        import resource  # noqa: PLC0415 - as above

        for kind, mine, most in self._before:
            resource.setrlimit(kind, (mine, most))

    def fix(self, pid: int) -> None:
        """It can't raise them again, unless it is somebody else by now, or over."""
        import resource  # noqa: PLC0415 - as above

        for kind, soft, hard in self._limits:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                resource.prlimit(pid, kind, (soft, hard))

"""Faults of the kernel in a process that runs, by strace: system calls that fail, or that are its
last ones. And what a trace says about them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

SYNCS: Final = "fsync,fdatasync"
WRITES: Final = "write,writev,pwrite64,pwritev,pwritev2"
_BEGUN: Final = re.compile(r"^(\d+) +(\w+)\((\d+)<([^>]*)>(.*)$")
_RESUMED: Final = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")


@dataclass(frozen=True, slots=True)
class Fault:
    """`does` and `when` are strace's: `error=EIO` at the call number `3`, at `3..5`, at `2+4`.
    Counted in each thread by itself, over the calls that touch one of `paths`, if there are any."""

    calls: str
    does: str
    when: str
    paths: Sequence[Path] = ()

    def before(self, into: Path) -> list[str]:
        """Words before a command: counted from its first call on, and the process is its own."""
        return ["strace", "-D", *self._options(into)]

    def argv(self, pid: int, into: Path) -> list[str]:
        return ["strace", *self._options(into), "-p", str(pid)]

    def _options(self, into: Path) -> list[str]:
        touching = [word for path in self.paths for word in ("-P", str(path))]
        inject = f"inject={self.calls}:{self.does}:when={self.when}"
        traced = ["-f", "-y", "-s", "0", "-e", f"trace={self.calls}", "-e", "signal=none"]
        return [*traced, *touching, "-e", inject, "-o", str(into)]


@contextmanager
def injected(pid: int, fault: Fault, *, into: Path) -> Iterator[None]:
    """In all threads of a process, counted from now."""
    with subprocess.Popen(fault.argv(pid, into), stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        try:
            # With paths it speaks of those first.
            while "attached" not in (said := strace.stderr.readline()):
                if not said or "ptrace" in said:
                    pytest.skip(f"this machine lets nobody trace: {said}")
            yield
        finally:
            strace.terminate()
            strace.stderr.read()


@dataclass(frozen=True, slots=True)
class Called:
    """A call that has ended, in the order of the ends."""

    thread: str
    name: str
    path: str
    result: str

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.result


def calls_in(trace: Path) -> list[Called]:
    found = []
    begun: dict[tuple[str, str], str] = {}  # another thread's line may come between
    for line in trace.read_text(errors="replace").splitlines():
        if (call := _BEGUN.match(line)) is not None:
            thread, name, _, path, rest = call.groups()
            if rest.endswith("<unfinished ...>"):
                begun[thread, name] = path
            else:
                found.append(Called(thread, name, path, rest))
        elif (call := _RESUMED.match(line)) is not None:
            thread, name, rest = call.groups()
            if (thread, name) in begun:
                found.append(Called(thread, name, begun.pop((thread, name)), rest))
    return found

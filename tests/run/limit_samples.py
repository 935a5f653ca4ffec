"""Functions that take too much of something."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

MIB = 1024 * 1024


def take_memory(mib: int) -> None:
    """Bit by bit, then never end."""
    held = [b"x" * MIB for _ in range(mib)]  # each byte is written
    time.sleep(600)
    del held


def take_at_once(mib: int) -> int:
    return len(bytearray(mib * MIB))


def start_processes(count: int) -> None:
    for _ in range(count):
        subprocess.Popen(["sleep", "600"])
    time.sleep(600)


def run_many(count: int) -> int:
    """One short process after another. Raises if one is ended by somebody else."""
    for _ in range(count):
        subprocess.run(["/bin/true"], check=True)
    return count


def open_files(count: int) -> int:
    return len([os.open("/dev/null", os.O_RDONLY) for _ in range(count)])


def write_file(mib: int) -> None:
    Path("large").write_bytes(bytes(mib * MIB))


def seconds_left() -> tuple[float, int]:
    """Processor time used, and where the limit is."""
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    return time.process_time(), resource.getrlimit(resource.RLIMIT_CPU)[0]


def exceed_time() -> None:
    signal.raise_signal(signal.SIGXCPU)


def where() -> dict[str, str]:
    return {"cwd": str(Path.cwd()), "temp": tempfile.gettempdir(), "home": os.environ["HOME"]}

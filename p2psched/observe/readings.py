"""Reading what the kernel shows as small files. Whatever can't be read is not known: no sensor is a
reason for a peer to fail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READ_BYTES_MAX: Final = 256 * 1024  # /proc/stat of a machine with a thousand processors fits


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the kernel shows things."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")


def read_text(path: Path | str) -> str:
    """Empty if there is nothing to read."""
    try:
        # Not Path.read_text: it takes three times as long, and this is done all day.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, READ_BYTES_MAX).decode("utf-8", "replace")
    except OSError:  # a sensor that is there and does not answer, a process that has just ended
        return ""
    finally:
        os.close(descriptor)


def read_int(path: Path | str) -> int | None:
    try:
        return int(read_text(path))
    except ValueError:
        return None


def names_in(folder: Path | str) -> list[str]:
    """Sorted; none if there is no such folder."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (names are all that is wanted)
    except OSError:
        return []

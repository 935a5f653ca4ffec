"""Output of a program task that runs, read from its owner's disk while it grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from p2psched.model import limits

TAIL_BYTES_MAX: Final = 64 * limits.KIB


def read_piece(folder: Path, name: str, offset: int) -> tuple[int, bytes] | None:
    """Where the next piece starts, and up to TAIL_BYTES_MAX bytes; None if the task is over.

    Blocks. The task owns the folder, so nothing in it is trusted: no link is followed, no pipe is
    waited for.
    """
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return (offset, b"") if folder.is_dir() else None
    except OSError:
        return None
    try:
        data = os.pread(descriptor, TAIL_BYTES_MAX, offset)
    except OSError:
        data = b""
    finally:
        os.close(descriptor)
    return offset + len(data), data

"""Put this folder first on PYTHONPATH, and every other write of the process to a file in the folder
`SHORT_WRITES` stores two bytes only, and says so. Each one leaves a byte in `SHORT_WRITES.count`.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_REAL = os.write
_CALLS = count()
_FOLDER = os.environ.get("SHORT_WRITES", "")


def _write(fd: int, data: ReadableBuffer) -> int:
    size = memoryview(data).nbytes
    if size <= 2 or not _is_ours(fd) or next(_CALLS) % 2:
        return _REAL(fd, data)
    with Path(f"{_FOLDER}.count").open("ab", buffering=0) as file:
        file.write(b".")
    return _REAL(fd, memoryview(data).cast("B")[:2])


def _is_ours(fd: int) -> bool:
    try:
        return Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(_FOLDER)
    except OSError:
        return False


if _FOLDER:
    os.write = _write

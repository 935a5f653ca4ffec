"""Put this folder first on PYTHONPATH, and syncs of the process take as long as a file says.

`SLOW_DISK` names the file, which holds milliseconds; while it is not there nothing is slower.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_REAL = os.fdatasync


def _fdatasync(fd: FileDescriptorLike) -> None:
    try:
        wait_ms = int(Path(os.environ["SLOW_DISK"]).read_text())
    except (KeyError, OSError):
        wait_ms = 0
    time.sleep(wait_ms / 1000)
    _REAL(fd)


os.fdatasync = _fdatasync

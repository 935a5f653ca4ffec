"""Functions that leave processes behind, or end badly."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path


def leave_all(folder: str) -> None:
    """Start a child that ignores SIGTERM and a daemon that does, too; then never end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for name in ("child", "daemon"):
        if os.fork() == 0:
            if name == "daemon":
                os.setsid()
                if os.fork():
                    os._exit(0)
            (Path(folder) / f"{name}.new").write_text(str(os.getpid()))
            (Path(folder) / f"{name}.new").rename(Path(folder) / name)
            time.sleep(600)
            os._exit(0)
    time.sleep(600)


def end_so(how: str) -> None:
    match how:
        case "exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "raise":
            raise RuntimeError("so")
        case "hang":
            time.sleep(600)

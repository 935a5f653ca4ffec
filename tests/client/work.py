"""What the tests of the executor run: importable by workers, as users' modules are."""

from __future__ import annotations

import os
import time
from pathlib import Path


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    raise LookupError(number)  # a comment that the traceback shows


def die() -> None:
    os._exit(7)


def wait_for(path: str) -> str:
    """Says that it began, and waits for the file, at most a minute."""
    Path(f"{path}.began").touch()
    for _ in range(1200):
        if Path(path).exists():
            break
        time.sleep(0.05)
    return path


class OpensNowhere:
    """Can be pickled, and not opened."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def opens_nowhere() -> OpensNowhere:
    return OpensNowhere()

"""SQLite's errors as ours: is the file broken, or does the disk take no more?"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from p2psched.model import errors
from p2psched.store.results_file import environment_error, is_environment, mark
from p2psched.store.results_rows import Mismatch


class Faults:
    """Of the database `path`. Call it around what uses it, with what that does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Raises Unavailable or NoSpace for what the disk refuses, Damaged for a broken file."""
        try:
            yield
        except Mismatch as fault:
            raise self._damaged(str(fault)) from fault
        except sqlite3.ProgrammingError:
            raise  # a call after `close`, for one: our fault, not the file's
        except sqlite3.DatabaseError as fault:
            if is_environment(fault):
                raise environment_error(doing, self._path, fault) from fault
            raise self._damaged(str(fault)) from fault

    def _damaged(self, what: str) -> errors.Damaged:
        """Leaves a mark, so that the next start doesn't trust the file either."""
        with contextlib.suppress(OSError):
            mark(self._path).touch(mode=0o600)
        return errors.Damaged(
            f"{what} ({self._path}): restart this peer; it sets the file aside then and builds it "
            "again from the ledger"
        )

"""The file of the result store: its schema, opening it, and setting aside what can't be trusted.

A database that is not sound, or of another schema, is moved to `<stem>.damaged-N` beside it: it is
rebuilt from the ledger, or from other peers. A mark is laid before and taken away after, so that a
crash on the way is repeated by the next start.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from pathlib import Path
from typing import Final

from p2psched.model import limits
from p2psched.model.errors import NoSpace, Unavailable

SCHEMA_VERSION: Final = 6
DAMAGED_KEPT_MAX: Final = 3  # files set aside, for people to look at; the oldest goes first
# The structure of a file up to this size is checked at open: 20 ms from memory, 2 s from a slow
# card. In a larger one damage is found by the read that meets it.
OPEN_CHECK_BYTES_MAX: Final = 32 * limits.MIB

# The lock of the data folder keeps other peers out: only a curious reader can stand in the way.
_BUSY_TIMEOUT_S: Final = 0.5
_CACHE_KIB: Final = 2048
_JOURNAL_BYTES_MAX: Final = 8 * limits.MIB  # the write-ahead log shrinks to this after its peaks
# Free pages stay for what comes next; what is beyond is given back, a little with each store.
FREE_BYTES_MAX: Final = 8 * limits.MIB
GIVEN_BACK_BYTES: Final = 4 * limits.MIB
_TABLES_3: Final = ("applied", "history", "lacking", "segment", "spec")
_TABLES_4: Final = ("applied", "history", "job", "job_number", "lacking", "segment")
_TABLES_5: Final = ("applied", "history", "job", "job_number", "lacking", "page", "segment")
_TABLES: Final = ("applied", "attempt", *_TABLES_5[1:])
_PAGE: Final = """
CREATE TABLE page (
    number INTEGER PRIMARY KEY, ids_crc INTEGER NOT NULL, ids BLOB NOT NULL,
    crc INTEGER NOT NULL, events BLOB NOT NULL);
"""
_ATTEMPT: Final = """
CREATE TABLE attempt (
    job INTEGER NOT NULL, position INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    cause TEXT NOT NULL, busy_us INTEGER NOT NULL, "grant" INTEGER NOT NULL, peer TEXT NOT NULL,
    crc INTEGER NOT NULL, data BLOB NOT NULL, blobs BLOB NOT NULL,
    PRIMARY KEY (job, "grant", start));
PRAGMA user_version = 6;  -- SCHEMA_VERSION
COMMIT;
"""
_SCHEMA: Final = """
BEGIN;
CREATE TABLE applied (
    one INTEGER PRIMARY KEY CHECK (one = 1), entry INTEGER NOT NULL, indexed INTEGER NOT NULL);
INSERT INTO applied VALUES (1, 0, 0);
CREATE TABLE job (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, crc INTEGER NOT NULL, spec BLOB NOT NULL);
CREATE TABLE job_number (id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE segment (
    job INTEGER NOT NULL, position INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    cause TEXT NOT NULL, busy_us INTEGER NOT NULL, "grant" INTEGER NOT NULL, peer TEXT NOT NULL,
    crc INTEGER NOT NULL, data BLOB NOT NULL, blobs BLOB NOT NULL,
    PRIMARY KEY (job, position, start));
CREATE INDEX segment_start ON segment (job, start) WHERE position > 0;
CREATE TABLE history (
    job INTEGER NOT NULL, last INTEGER NOT NULL, place INTEGER NOT NULL, crc INTEGER NOT NULL,
    events BLOB NOT NULL, PRIMARY KEY (job, last, place));
CREATE TABLE lacking (job TEXT PRIMARY KEY, upto INTEGER NOT NULL, positions INTEGER NOT NULL);
"""  # and `_PAGE`, `_ATTEMPT`
_FILES: Final = ("-wal", "-shm", "")  # of one database; the log goes first when it is set aside


class Unsound(Exception):
    """The file is no database that we can trust; the text says why."""


class Outdated(Unsound):
    """It is of an older schema, and may be brought into it (`results_upgrade`)."""


def open_database(path: Path) -> sqlite3.Connection:
    if mark(path).exists():
        raise Unsound("an earlier read found damage in it")
    # SQLite gives its write-ahead log the mode that the file has when it is first opened.
    path.touch(mode=0o600)
    db = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(db, path)
    except sqlite3.Error as fault:
        db.close()
        if is_environment(fault):
            raise
        raise Unsound(str(fault)) from fault
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    # Has an effect on a new file only, and only before anything is written to it.
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES_MAX}")
    names = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    tables = tuple(name for (name,) in names.fetchall())
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not tables and version == 0:
        db.executescript(_SCHEMA + _PAGE + _ATTEMPT)
    elif tables == _TABLES_5 and version == 5:
        db.executescript(f"BEGIN;{_ATTEMPT}")  # all else is as it was
    elif tables == _TABLES_4 and version == 4:
        db.executescript(f"BEGIN;{_PAGE}{_ATTEMPT}")
    elif tables == _TABLES_3 and version == 3:
        raise Outdated("schema 3 is that of an older version")
    elif tables != _TABLES or version != SCHEMA_VERSION:
        raise Unsound(f"schema {version} is not ours ({SCHEMA_VERSION})")
    elif path.stat().st_size <= OPEN_CHECK_BYTES_MAX:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Unsound(verdict)
    if len(db.execute("SELECT entry FROM applied WHERE entry >= 0").fetchall()) != 1:
        raise Unsound("it has lost its applied index")


def give_back(db: sqlite3.Connection) -> None:
    """Outside a transaction: make the file smaller if much of it is free, because jobs were
    forgotten and fewer came. A disk that is full now is no fault: later is early enough. A file
    from before this could be done keeps its size, and its free pages are used again as ever."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    over = free - FREE_BYTES_MAX // page_bytes
    if over <= 0:
        return
    pages = min(over, GIVEN_BACK_BYTES // page_bytes)
    try:
        # Each step of the statement frees one page, and `execute` takes the first one only.
        db.executescript(f"PRAGMA incremental_vacuum({pages})")
    except sqlite3.DatabaseError as fault:
        if not is_environment(fault):
            raise


def is_environment(fault: sqlite3.Error) -> bool:
    """True if the file may well be sound and the disk, the rights or another process stand in
    the way: then setting it aside would help nobody."""
    code = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }


def environment_error(doing: str, path: Path, fault: sqlite3.Error) -> Unavailable:
    """What is told of such a fault: NoSpace, or that it is unavailable for another reason."""
    code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
    kind = NoSpace if code == sqlite3.SQLITE_FULL else Unavailable
    return kind(f"can't {doing} in {path}: {fault}: free some space, check the disk")


def mark(path: Path) -> Path:
    return path.with_name(f"{path.stem}.distrusted")


def set_aside(path: Path, reason: str) -> None:
    """Move a database away and keep the newest few of its kind. A crash on the way is repeated by
    the next start: the mark is laid first and taken away last."""
    pattern = re.compile(re.escape(f"{path.stem}.damaged-") + r"(\d{1,9})")
    matches = (pattern.fullmatch(other.name) for other in path.parent.iterdir())
    numbers = sorted(int(match[1]) for match in matches if match)
    kept = path.with_name(f"{path.stem}.damaged-{(numbers or [0])[-1] + 1}")
    mark(path).touch(mode=0o600)
    for suffix in _FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    for number in numbers[: max(0, len(numbers) + 1 - DAMAGED_KEPT_MAX)]:
        for suffix in _FILES:
            old = path.with_name(f"{path.stem}.damaged-{number}{suffix}")
            old.unlink(missing_ok=True)
    mark(path).unlink()
    logging.getLogger(__name__).warning(
        "results-set-aside", extra={"file": str(path), "kept_as": kept.name, "reason": reason}
    )

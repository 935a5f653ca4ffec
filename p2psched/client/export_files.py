"""The formats of an export: JSON lines, CSV, SQLite, and a folder with one folder a task.

A writer is made in the thread that uses it or handed over between uses, never shared. It writes
aside of the path that was asked for; `export.py` moves it there once it is whole.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol, TextIO

from p2psched.client.export_rows import FIELDS, Row, fields_of
from p2psched.model.blob import ResultBlob
from p2psched.model.errors import UsageError

JSONL: Final = "jsonl"
CSV: Final = "csv"
SQLITE: Final = "sqlite"
FOLDER: Final = "dir"
FORMATS: Final = (JSONL, CSV, SQLITE, FOLDER)
MARK: Final = "export.json"  # in a folder: that it is an export, and may be replaced by one
_SUFFIXES: Final = {
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".csv": CSV,
    ".sqlite": SQLITE,
    ".sqlite3": SQLITE,
    ".db": SQLITE,
    "": FOLDER,
}
_INTEGERS: Final = frozenset(
    {"exit", "signal", "stdout_total", "stderr_total", "busy_us", "together", "grant"}
    | {"committed_ms"}
)
# Of the SQLite table; without a type a column keeps what it is given.
_COLUMNS: Final = {
    name: "INTEGER" if name in _INTEGERS else "" if name in ("stdout", "stderr") else "TEXT"
    for name in FIELDS
    if name not in ("index", "output_kind")
}


def format_of(path: Path) -> str:
    """What a path's suffix asks for. Raises UsageError."""
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{path.name} does not say its format: name one of {', '.join(FORMATS)}"
        ) from None


class Writer(Protocol):
    def add(self, rows: Iterable[Row]) -> int:
        """Returns how many there were."""
        ...

    def place(self, blob: ResultBlob) -> Path | None:
        """Where the bytes of a large result go; None where only its digest is told."""
        ...

    def finish(self) -> None:
        """All rows are with the system."""
        ...

    def close(self) -> None:
        """Idempotent; without `finish` what was written is worth nothing."""
        ...


class JsonLinesWriter:
    """One object a line, without the fields that say nothing. A value of kind "json" stands as it
    is, every other one as a text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, rows: Iterable[Row]) -> int:
        count = 0
        for row in rows:
            fields = {k: v for k, v in fields_of(row).items() if v not in (None, "")}
            if row.value_kind == "json":
                fields["value"] = json.loads(row.value or "null")
            if row.blobs:
                fields["blobs"] = json.loads(str(fields["blobs"]))
            self._stream.write(json.dumps(fields, ensure_ascii=False) + "\n")
            count += 1
        return count

    def place(self, blob: ResultBlob) -> None:
        """A row names digest and size."""

    def finish(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """The stream is its owner's."""


class CsvWriter:
    """RFC 4180, UTF-8, with a head line; what is not there is an empty cell."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writer = csv.DictWriter(stream, FIELDS)
        self._writer.writeheader()

    def add(self, rows: Iterable[Row]) -> int:
        count = 0
        for row in rows:
            self._writer.writerow(fields_of(row))
            count += 1
        return count

    def place(self, blob: ResultBlob) -> None:
        """A row names digest and size."""

    def finish(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """The stream is its owner's."""


class SqliteWriter:
    """Table `results`, one row a task. Its first column is `task`, as `index` is a word of SQL.
    Outputs are TEXT if they are UTF-8 and BLOB otherwise; `packed` is the value as it is."""

    def __init__(self, path: Path) -> None:
        # Written by one thread at a time, see the module.
        self._db = sqlite3.connect(path, check_same_thread=False)
        # The file has another name until it is whole, so a crash needs no journal.
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        columns = ", ".join(f'"{name}" {kind}' for name, kind in _COLUMNS.items())
        self._db.execute(f"CREATE TABLE results (task INTEGER PRIMARY KEY, {columns}, packed BLOB)")
        marks = ", ".join("?" * (len(_COLUMNS) + 2))
        self._insert = f"INSERT INTO results VALUES ({marks})"  # noqa: S608 (question marks only)

    def add(self, rows: Iterable[Row]) -> int:
        return self._db.executemany(self._insert, map(self._values, rows)).rowcount

    def _values(self, row: Row) -> tuple[object, ...]:
        fields = fields_of(row)
        if fields["output_kind"] != "text":
            fields["stdout"], fields["stderr"] = row.stdout, row.stderr
        return (row.index, *(fields[name] for name in _COLUMNS), row.packed or None)

    def place(self, blob: ResultBlob) -> None:
        """A row names digest and size."""

    def finish(self) -> None:
        self._db.execute("CREATE INDEX results_by_state ON results (state, cause)")
        self._db.commit()

    def close(self) -> None:
        self._db.close()


class FolderWriter:
    """MARK, and a folder a task, named by its index: `meta.json`, and what there is of
    `value.json`, `value.txt` (what Python writes), `value.packed`, `stdout` and `stderr`; in
    `files` what is large besides the value, by its name if a program handed it over, else
    by its digest. `NAME.lost` is empty and stands for what no peer had any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir()

    def add(self, rows: Iterable[Row]) -> int:
        count = 0
        for row in rows:
            folder = self._path / str(row.index)
            folder.mkdir()
            for name, data in _files(row).items():
                (folder / name).write_bytes(data)
            count += 1
        return count

    def place(self, blob: ResultBlob) -> Path:
        """A program's files have names, those in a value their digests for it."""
        folder = self._path / str(blob.index)
        return folder / "files" / blob.name if blob.name else folder / "value.packed"

    def finish(self) -> None:
        """Its files are the system's to write back: syncing each would take hours."""
        (self._path / MARK).write_text('{"p2psched_export": 1}\n')

    def close(self) -> None:
        """Nothing is open."""


def _files(row: Row) -> dict[str, bytes]:
    fields = fields_of(row)
    value = (row.value or "").encode("utf-8", "backslashreplace")
    match row.value_kind:
        case "json":
            files = {"value.json": value + b"\n"}
        case "repr":
            files = {"value.txt": value + b"\n"}
        case "packed":
            files = {"value.packed": row.packed}
        case _:
            files = {}
    files |= {name: data for name, data in _outputs(row) if data}
    for name in ("output_kind", "stdout", "stderr"):
        del fields[name]
    if row.value_kind != "blob":
        del fields["value"]
    fields["blobs"] = json.loads(str(fields["blobs"])) if row.blobs else []
    files["meta.json"] = json.dumps(fields, indent=1).encode() + b"\n"
    return files


def _outputs(row: Row) -> tuple[tuple[str, bytes], ...]:
    return ("stdout", row.stdout), ("stderr", row.stderr)

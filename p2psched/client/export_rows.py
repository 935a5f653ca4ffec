"""Results as rows of a table: what an export writes of each task, whatever the format.

No value is unpickled, since that runs what its task put into it. Plain values become JSON where
JSON can say them, else what Python writes; all others stay packed, as base64.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from p2psched.client.results import is_pickle, open_value
from p2psched.model import chunks, items, values
from p2psched.model.errors import ProtocolError
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import TaskSet

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
_INTEGER_MAX: Final = 2**63 - 1  # of a table; a header is somebody else's


@dataclass(frozen=True, slots=True)
class Origin:
    """Who brought a segment, under which grant, and when it was committed."""

    grant: int
    peer: PeerId
    wall_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task. `value_kind` says what `value` is: "json" (a JSON text), "repr" (what Python
    writes of a plain value that JSON can't say), "packed" (base64 of a packed value; a pickle runs
    code when it is opened), "blob" (the digest of a large result), or "" (there is none)."""

    index: int
    state: str
    cause: str
    exit: int | None = None
    signal: int | None = None
    error: str | None = None  # type of the exception
    message: str | None = None
    traceback: str | None = None
    value_kind: str = ""
    value: str | None = None
    packed: bytes = b""  # the value as it is
    stdout: bytes = b""  # may lack its middle: then it is shorter than `stdout_total`
    stderr: bytes = b""
    stdout_total: int = 0
    stderr_total: int = 0
    busy_us: int | None = None  # mean over the `together` tasks that were recorded in one
    together: int = 0
    blobs: tuple[tuple[str, str, int], ...] = ()  # large parts of the result: name, digest, bytes
    origin: Origin | None = None


def rows_of(job: JobId, segment: Segment, origin: Origin | None) -> Iterator[Row]:
    """The tasks of a segment, in order. Raises ProtocolError for what can't be read."""
    count = segment.stop - segment.start
    try:
        found = chunks.unpack(segment.data) if segment.data else [b""] * count
        for index, item in zip(range(segment.start, segment.stop), found, strict=True):
            yield _row(segment, index, item, origin)
    except ValueError as error:
        raise ProtocolError(
            f"results {segment.start} to {segment.stop - 1} of job {short(job)} can't be read "
            f"({error}): use the version of p2psched that the cluster runs"
        ) from error


def cancelled_rows(tasks: TaskSet) -> Iterator[Row]:
    """Tasks that ended without a result because their job was cancelled."""
    for index in tasks:
        yield Row(index=index, state=CANCELLED, cause=Cause.CANCELLED)


def _row(segment: Segment, index: int, item: bytes, origin: Origin | None) -> Row:
    header, packed, stdout, stderr = items.unpack(item) if item else ({}, b"", b"", b"")
    ok = segment.cause is Cause.OK
    kind, value = _described(packed) if ok and packed else ("", None)
    together = segment.stop - segment.start
    return Row(
        index=index,
        state=SUCCEEDED if ok else CANCELLED if segment.cause is Cause.CANCELLED else FAILED,
        cause=segment.cause.value,
        exit=_number(header, "exit"),
        signal=_number(header, "signal"),
        error=_text(header, "type"),
        message=_text(header, "message"),
        traceback=_text(header, "traceback"),
        value_kind=kind,
        value=value,
        packed=packed if ok else b"",
        stdout=stdout,
        stderr=stderr,
        stdout_total=_number(header, "stdout_total") or len(stdout),
        stderr_total=_number(header, "stderr_total") or len(stderr),
        busy_us=segment.busy_us // together,
        together=together,
        blobs=tuple((b.name, str(b.ref), b.ref.size) for b in segment.blobs if b.index == index),
        origin=origin,
    )


def _described(packed: bytes) -> tuple[str, str]:
    kind = values.kind_of(packed)
    if kind == values.BLOB:
        return "blob", values.blob_of(packed)[0].hex()
    opened: object = None
    closed = bool(kind) or is_pickle(packed)
    if not closed:
        try:
            opened = open_value(packed)
        except ValueError:  # damaged, or of a newer version: whoever reads it may know better
            closed = True
    if closed:
        return "packed", base64.b64encode(packed).decode()
    if _is_json(opened):
        return "json", json.dumps(opened, ensure_ascii=False)
    return "repr", repr(opened)


def _is_json(value: object) -> bool:
    """True if JSON gives back exactly this value: `json.dumps` alone turns 1 into "1" as a key, and
    writes a NaN that few can read."""
    match value:
        case None | bool() | int():
            return True
        case str():
            return value.isascii() or _is_text(value)
        case float():
            return math.isfinite(value)
        case list():
            return all(_is_json(part) for part in value)
        case dict():
            return all(isinstance(key, str) and _is_json(part) for key, part in value.items())
        case _:
            return False


def _is_text(text: str) -> bool:
    """False for lone surrogates, which no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(header: Mapping[str, int | str], name: str) -> int | None:
    found = header.get(name)
    return found if isinstance(found, int) and -_INTEGER_MAX <= found <= _INTEGER_MAX else None


def _text(header: Mapping[str, int | str], name: str) -> str | None:
    """Such that any file takes it: a lone surrogate becomes its escape."""
    found = header.get(name)
    return None if found is None else str(found).encode("utf-8", "backslashreplace").decode()


# --- rows as flat fields --------------------------------------------------------------------------

FIELDS: Final = (
    "index",
    "state",
    "cause",
    "exit",
    "signal",
    "error",
    "message",
    "value_kind",
    "value",
    "output_kind",
    "stdout",
    "stderr",
    "stdout_total",
    "stderr_total",
    "busy_us",
    "together",
    "peer",
    "grant",
    "committed_ms",
    "blobs",
    "traceback",
)


def fields_of(row: Row) -> dict[str, object]:
    """FIELDS, each a text, a number or None. `output_kind` is "text" or, if a program wrote what is
    no UTF-8, "base64"; `committed_ms` is Unix time, for people."""
    output_kind, (stdout, stderr) = _texts(row.stdout, row.stderr)
    origin = row.origin
    return {
        "index": row.index,
        "state": row.state,
        "cause": row.cause,
        "exit": row.exit,
        "signal": row.signal,
        "error": row.error,
        "message": row.message,
        "value_kind": row.value_kind,
        "value": row.value,
        "output_kind": output_kind,
        "stdout": stdout,
        "stderr": stderr,
        "stdout_total": row.stdout_total,
        "stderr_total": row.stderr_total,
        "busy_us": row.busy_us,
        "together": row.together,
        "peer": None if origin is None else origin.peer,
        "grant": None if origin is None else origin.grant,
        "committed_ms": None if origin is None else origin.wall_ms,
        "blobs": blobs_text(row) if row.blobs else None,
        "traceback": row.traceback,
    }


def blobs_text(row: Row) -> str:
    """A JSON list."""
    return json.dumps([{"name": n, "digest": d, "bytes": size} for n, d, size in row.blobs])


def _texts(*outputs: bytes) -> tuple[str, list[str]]:
    try:
        return "text", [output.decode() for output in outputs]
    except UnicodeDecodeError:
        return "base64", [base64.b64encode(output).decode() for output in outputs]

"""The peer's log: one line an event, its name and its fields, to one stream.

Drivers write `log.info("grant-committed", extra={"job": ..., "grant": ...})` with the standard
library's loggers; this module only gives the lines their form. It refuses to print secrets: a
field that is named like one is hidden, and bytes are shown by their length only. What comes from
outside can't forge a line: line breaks and control characters inside a value are escaped.

A log that can't be written (the terminal is gone, the disk is full) never stops the peer.
"""

from __future__ import annotations

import json as jsonlib
import logging
import re
from datetime import UTC, datetime
from typing import Final, TextIO

from p2psched.model.errors import UsageError

LEVELS: Final = ("debug", "info", "warning", "error")
VALUE_LEN_MAX: Final = 2000  # longer values are cut, with a mark

_HIDDEN: Final = re.compile(r"secret|password|token|credential|private", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[^\s\"'=\x00-\x1f\x7f]+")
# Names that the record itself owns; anything else on it came by `extra`.
_OWN: Final = frozenset(logging.LogRecord("", 0, "", 0, None, None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


def setup(level: str, stream: TextIO, *, json: bool) -> None:
    """Send the process's log to `stream`, as text or as one JSON object a line. Calling it again
    replaces what it did before. Raises UsageError for an unknown level."""
    if level not in LEVELS:
        raise UsageError(f"no log level {level!r}: choose one of {', '.join(LEVELS)}")
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    handler = _Handler(stream)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """`2026-01-01T12:00:00.000Z INFO event-name key=value`, a traceback indented below."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        trace = fields.pop("traceback", "")
        event = _escaped(record.getMessage())
        words = [_timestamp(record), record.levelname, event]
        words += (f"{name}={_word(value)}" for name, value in fields.items())
        lines = [" ".join(words)]
        lines += (f"    {line}" for line in str(trace).splitlines())
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One object a line: `time`, `level`, `event`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname,
            "event": record.getMessage(),
        }
        for name, value in _fields(record).items():
            line[f"{name}_" if name in line else name] = value
        return jsonlib.dumps(line)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name is given)
        """The standard one writes a traceback to the stream that just failed."""


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = {}
    if not record.name.startswith("p2psched"):
        fields["logger"] = record.name
    for name, value in record.__dict__.items():
        if name not in _OWN:
            fields[name] = "[hidden]" if _HIDDEN.search(name) else _shown(value)
    if record.exc_info and record.exc_info[1] is not None:
        fault = record.exc_info[1]
        fields["error"] = _shown(f"{type(fault).__name__}: {fault}")
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _shown(value: object) -> object:
    """Numbers as they are, everything else as text of a bounded length."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = str(value)
    return text if len(text) <= VALUE_LEN_MAX else f"{text[:VALUE_LEN_MAX]}[cut]"


def _word(value: object) -> str:
    """A value that stays one word on its line."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else jsonlib.dumps(text)


def _escaped(text: str) -> str:
    return text if text.isprintable() else jsonlib.dumps(text)


def _timestamp(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"

"""What commands print: tables that fit, JSON that stays, and ids alone.

`table` is for people: it is cut to the width of a terminal, and never cut in a pipe. `json` is one
object on one line, `{"version": 1, ...}`; names in it stay, new ones may come. `quiet` is ids.
Nothing that came from elsewhere reaches a terminal with its control characters, but the output of
programs, which is passed on as it is.
"""

from __future__ import annotations

import enum
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TextIO

JSON_VERSION: Final = 1
GAP: Final = "  "
ERROR_SHOWN: Final = (1500, 300)  # characters of its beginning and its end: it quotes words
_COLORS: Final = {
    "succeeded": "32",
    "ok": "32",
    "alive": "32",
    "running": "36",
    "leader": "1",
    "suspect": "33",
    "cancelled": "33",
    "failed": "31",
    "dead": "31",
}


class Output(enum.StrEnum):
    """How a command answers."""

    TABLE = "table"
    JSON = "json"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`shrink_to`: may be cut to so many characters. `drop`: goes if the table is too wide, those
    with the highest number first; 0 stays."""

    title: str
    right: bool = False
    shrink_to: int = 0
    drop: int = 0


def print_json(**fields: object) -> None:
    write_line(json.dumps({"version": JSON_VERSION, **fields}))


def print_error(code: str, message: str, exit_code: int, *, json: bool) -> int:
    """One line on stderr. Returns the exit code."""
    text = one_line(message)
    head, tail = ERROR_SHOWN
    if len(text) > head + tail:
        text = f"{text[:head]} … {text[-tail:]}"
    if json:
        error = {"code": code, "message": text, "exit_code": exit_code}
        note(_dumps({"version": JSON_VERSION, "error": error}))
    else:
        note(f"error: {text}")
    return exit_code


def _dumps(value: object) -> str:
    return json.dumps(value)


def write_line(text: str) -> None:
    print(text, flush=True)


def note(text: str) -> None:
    """A line for people, on stderr, whatever the format."""
    print(text, file=sys.stderr, flush=True)


def write_bytes(stream: TextIO, data: bytes) -> None:
    """Pass on what a program wrote, byte by byte."""
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


# --- tables ---------------------------------------------------------------------------------------


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    for line in table_lines(columns, rows):
        write_line(line)


def table_lines(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> list[str]:
    """For stdout, as it is now."""
    return table(columns, rows, width=_width(), color=_colors(sys.stdout))


def print_sheet(pairs: Sequence[tuple[str, object]]) -> None:
    """Names and values, one pair a line; empty values are left out."""
    shown = [(name, clean(str(value))) for name, value in pairs if value not in ("", None)]
    label = max(len(name) for name, _ in shown)
    color = _colors(sys.stdout)
    for name, value in shown:
        write_line(f"{name:<{label}}{GAP}{_painted(value, value, color)}")


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[object]],
    *,
    width: int | None,
    color: bool = False,
) -> list[str]:
    """The lines of a table, at most `width` wide if that can be done."""
    cells = [[clean(str(value)) for value in row] for row in rows]
    kept = list(range(len(columns)))
    natural = [
        max([_cell_width(column.title), *(_cell_width(row[i]) for row in cells)])
        for i, column in enumerate(columns)
    ]
    widths = _shrunk(columns, natural, kept, width)
    while sum(widths.values()) + len(GAP) * (len(kept) - 1) > (width or sys.maxsize):
        last = max(kept, key=lambda i: columns[i].drop)
        if columns[last].drop == 0:
            break
        kept.remove(last)
        widths = _shrunk(columns, natural, kept, width)
    lines = [_line([column.title.upper() for column in columns], columns, kept, widths, False)]
    return lines + [_line(row, columns, kept, widths, color) for row in cells]


def _shrunk(
    columns: Sequence[Column], natural: Sequence[int], kept: Sequence[int], width: int | None
) -> dict[int, int]:
    """Widths of the kept columns: cut where that is allowed, the last ones first."""
    widths = {i: natural[i] for i in kept}
    if width is None:
        return widths
    over = sum(widths.values()) + len(GAP) * (len(kept) - 1) - width
    for i in reversed(kept):
        least = columns[i].shrink_to
        if over > 0 and 0 < least < widths[i]:
            cut = min(over, widths[i] - least)
            widths[i] -= cut
            over -= cut
    return widths


def _line(
    row: Sequence[str],
    columns: Sequence[Column],
    kept: Sequence[int],
    widths: dict[int, int],
    color: bool,
) -> str:
    parts = []
    for i in kept:
        text = _cut(row[i], widths[i])
        space = " " * (widths[i] - _cell_width(text))
        shown = _painted(row[i], text, color)
        parts.append(space + shown if columns[i].right else shown + space)
    return GAP.join(parts).rstrip()


def _painted(word: str, text: str, color: bool) -> str:
    code = _COLORS.get(word) if color else None
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _cut(text: str, width: int) -> str:
    if _cell_width(text) <= width:
        return text
    while text and _cell_width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def _cell_width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _width() -> int | None:
    """Of the terminal that we print to; None if it is none and nobody said."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(20, shutil.get_terminal_size().columns)
    return None


def _colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# --- texts ----------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Without control characters: each is shown as its escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def one_line(text: str) -> str:
    return clean(" ".join(text.split()))


def count(number: int, noun: str) -> str:
    """`1 task`, `12 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """A length of time in one or two units: `0.4 s`, `12 s`, `3 min`, `2 h`, `5 d`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def moment(wall_ms: int | None) -> str | None:
    """Unix time in milliseconds as ISO 8601, UTC."""
    if wall_ms is None:
        return None
    when = datetime.fromtimestamp(wall_ms // 1000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}Z"


def size(number: int) -> str:
    """Bytes for people."""
    if number < 1024:
        return f"{number} B"
    value = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024 or unit == "GiB":
            break
    return f"{value:.1f} {unit}"

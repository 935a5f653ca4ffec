"""What a task says of how far it is.

    p2psched.progress(done, total, "epoch 3")          in a function, or in a program's Python
    echo 3 10 epoch 3 > "$P2P_PROGRESS"                in any other program

A word replaces the one before, so a tight loop may say as many as it likes: nobody is sent a
message, the peer looks once a second. Standard library only and loaded on both sides, like `files`.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .shared import Shared
    from .streams import Streams

HOME: Final = "p2psched.run.host.words"
VARIABLE: Final = "P2P_PROGRESS"
FILE: Final = ".p2p-progress"  # in a program's folder; no sent file has such a name
NOTE_BYTES_MAX: Final = 80
LINE_BYTES: Final = 160  # of the file; a shorter line is filled up, so it needs no truncation
LOOK_NS: Final = 500_000_000  # between two looks of a spawner
NEWEST_BYTES: Final = 4096  # of what was printed since, in which a pattern is looked for

Sink = Callable[[float, float, bytes], None]  # done, total or nan, note
Word = tuple[float, float | None, str]

_LINE: Final = re.compile(
    r"\s*(\d+(?:\.\d*)?)\s*(?:(%)|(?:/\s*|(?=\s))\s*(\d+(?:\.\d*)?))?(?=\s|$)"
)
_NOTHING: Final = math.nan


class Teller:
    """Of one process: where its words go."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self._is_new = True

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far this task is: `done` of `total` (anything that can be counted), and a short
        `note`. Costs about a microsecond, and nothing outside of a task. See `docs/progress.md`.

        It is shown by `p2psched job show`, and a task whose pace can't make its limit, or that
        has fallen silent, is found by it. The newest word counts; each is a sign of life.
        """
        sink = self.sink
        if sink is None:
            if not self._is_new:
                return
            self._is_new = False
            self.sink = sink = _file_sink()
            if sink is None:
                return
        text = note.encode(errors="replace")[:NOTE_BYTES_MAX] if note else b""
        sink(float(done), _NOTHING if total is None else float(total), text)


teller: Final = Teller()
progress = teller.progress


def _file_sink() -> Sink | None:
    """For a program: its file."""
    path = os.environ.get(VARIABLE, "")
    if not path:
        return None
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # the view is lost, never the task
        return None

    def write(done: float, total: float, note: bytes) -> None:
        line = f"{done:.12g} {'' if math.isnan(total) else f'{total:.12g}'} ".encode() + note
        line = line.replace(b"\n", b" ")[: LINE_BYTES - 1].ljust(LINE_BYTES - 1) + b"\n"
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, line, 0)

    return write


# --- what a spawner looks at ----------------------------------------------------------------------


def open_line(text: str) -> Word | None:
    """`3`, `3 10`, `3/10`, `45%`, each with or without a note behind it. None: it is no word."""
    line = text.partition("\n")[0]
    found = _LINE.match(line)
    if found is None:
        return None
    done, percent, total = found.groups()
    most = 100.0 if percent else float(total) if total else None
    return float(done), most, line[found.end() :].strip()


def open_match(found: re.Match[str]) -> Word | None:
    """Groups 1 and 2, or those named `done` and `total`; `percent` counts up to 100."""
    groups = found.groupdict()
    try:
        if "percent" in groups:
            return float(groups["percent"]), 100.0, found[0]
        done = groups.get("done") or found[1]
        total = groups.get("total") or (found[2] if found.re.groups > 1 else None)
        return float(done), None if total is None else float(total), found[0]
    except (TypeError, ValueError, IndexError):
        return None


class Listener:
    """Of one program that runs: its file, and what it prints."""

    def __init__(
        self, shared: Shared, streams: Streams, path: str, pattern: re.Pattern[str] | None
    ) -> None:
        self._shared = shared
        self._streams = (streams.stdout, streams.stderr)
        self._path = path
        self._pattern = pattern
        self._printed = [0, 0]  # bytes of each stream that were looked at
        self._written = (0, 0)  # the file, as it was looked at
        self._alive_ns = 0
        self._said_ns = 0
        self._word: Word | None = None
        self.due_ns = time.monotonic_ns() + LOOK_NS

    def look(self, now_ns: int) -> None:
        """What is new, into the shared notes."""
        self.due_ns = now_ns + LOOK_NS
        before = self._alive_ns
        for number, stream in enumerate(self._streams):
            count = stream.capture.total - self._printed[number]
            if count:
                self._alive_ns = now_ns
                self._printed[number] += count
                if self._pattern is not None:
                    self._search(self._pattern, stream.capture.newest(NEWEST_BYTES, count), now_ns)
        self._look_at_file(now_ns)
        if self._alive_ns != before:
            done, total, note = self._word or (_NOTHING, None, "")
            text = note.encode(errors="replace")[:NOTE_BYTES_MAX]
            limit = _NOTHING if total is None else total
            self._shared.say(done, limit, text, said_ns=self._said_ns, alive_ns=self._alive_ns)

    def _search(self, pattern: re.Pattern[str], data: bytes, now_ns: int) -> None:
        """The last match in whole lines: one that is half there may look like another number."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        word = None
        for found in pattern.finditer(data[: end + 1].decode(errors="replace")):
            word = open_match(found) or word
        if word is not None:
            self._word, self._said_ns = word, now_ns

    def _look_at_file(self, now_ns: int) -> None:
        try:
            found = os.lstat(self._path)
            if (found.st_mtime_ns, found.st_size) == self._written:
                return
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        try:
            data = os.read(descriptor, LINE_BYTES)
        except OSError:
            data = b""
        finally:
            os.close(descriptor)
        word = open_line(data.decode(errors="replace"))
        if word is not None:  # else it is just being written: its time stays unknown
            self._written = (found.st_mtime_ns, found.st_size)
            self._word, self._said_ns, self._alive_ns = word, now_ns, now_ns

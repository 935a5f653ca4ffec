"""Folders of program tasks, and the streams that a program writes.

Nothing here follows a symbolic link, and no sent file leaves its folder: names are checked by the
one who writes them, whoever checked them before.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import Final

from ...model.limits import OUTPUT_FILE_BYTES_MAX  # noqa: TID252 - see shared.py
from . import capture

File = tuple[str, int, bytes]  # name, mode, data

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def name_of(job: str, index: int, grant: int) -> str:
    """Of a task's folder. Tasks of a job share no folder of their own: spawners would take it away
    from each other."""
    return f"{job[:8]}.{index}.{grant}"


def make(folder: str, files: list[File]) -> None:
    """A fresh folder with its files. Raises ValueError for a name that is none, OSError."""
    try:
        os.mkdir(folder, 0o700)  # noqa: PTH102 - strings all along: this is the hot path
    except FileExistsError:
        remove(folder)  # left by an attempt whose spawner was killed
        os.mkdir(folder, 0o700)  # noqa: PTH102
    for name, mode, data in files:
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"sent file {name!r}: a name has 1 to 128 of A-Z a-z 0-9 . _ - "
                f"and does not start with a dot"
            )
        descriptor = os.open(f"{folder}/{name}", _NEW, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.fchmod(descriptor, mode & 0o777)
        finally:
            os.close(descriptor)


def remove(folder: str) -> None:
    """Take a task's folder away with all that it holds."""
    try:
        os.rmdir(folder)  # noqa: PTH106 - most are empty
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)


class Stream:
    """One output stream of a program: a pipe, its capture, and a file that a tail can follow.

    The file holds the first OUTPUT_FILE_BYTES_MAX bytes; what comes later is kept, as far as it
    is kept, by the capture only.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._path = f"{folder}/{name}"
        self.capture = capture.Capture()
        self.reader = -1
        self._writer = -1
        self._file = -1
        self._room = OUTPUT_FILE_BYTES_MAX

    def open(self) -> int:
        """The descriptor that the program writes to."""
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        return self._writer

    def close_writer(self) -> None:
        os.close(self._writer)
        self._writer = -1

    def read(self) -> bool:
        """Take what is there now; False at the end of the stream."""
        try:
            data = os.read(self.reader, capture.READ_BYTES)
        except BlockingIOError:
            return True
        if data:
            self.capture.add(data)
            self._write(data)
        return bool(data)

    def drain(self) -> None:
        """The rest, but no more than a bound: the writer may be a stranger that never stops."""
        capture.drain(self.reader, self.capture)

    def close(self) -> None:
        for descriptor in (self.reader, self._writer, self._file):
            if descriptor >= 0:
                os.close(descriptor)

    def _write(self, data: bytes) -> None:
        """Best effort: a full disk costs the live view, never the task."""
        if self._room <= 0:
            return
        with contextlib.suppress(OSError):
            if self._file < 0:
                self._file = os.open(self._path, _NEW, 0o600)
            os.write(self._file, data[: self._room])
        self._room -= len(data)

"""Tells when something gets its name in a folder by a rename, as the kernel sees it (inotify).

A file that is created under its final name is not told of: it isn't whole then. Nothing is polled:
what costs nothing is a folder in which nothing happens. If more happens than the kernel keeps, all
are told of once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

_IN_MOVED_TO: Final = 0x80
_IN_Q_OVERFLOW: Final = 0x4000
_IN_ONLYDIR: Final = 0x0100_0000
_EVENT: Final = struct.Struct("iIII")
_READ_BYTES: Final = 64 * 1024

OnRenamed = Callable[[str], None]  # with the new name; empty: look yourself


class Renames:
    """Made in a running loop, `close` in it."""

    def __init__(self) -> None:
        """Raises OSError if the system gives out no more of these."""
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _failure("fs.inotify.max_user_instances")
        self._watched: dict[int, OnRenamed] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self.read)

    def watch(self, folder: Path, on_renamed: OnRenamed) -> int:
        """Returns a number for `unwatch`. Raises OSError."""
        path, mask = os.fsencode(folder), _IN_MOVED_TO | _IN_ONLYDIR
        number: int = self._library.inotify_add_watch(self._descriptor, path, mask)
        if number < 0:
            raise _failure("fs.inotify.max_user_watches")
        self._watched[number] = on_renamed
        return number

    def unwatch(self, number: int) -> None:
        if self._watched.pop(number, None) is not None:
            self._library.inotify_rm_watch(self._descriptor, number)

    def read(self) -> None:
        """Tell of all that has happened until now."""
        while True:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                return
            position = 0
            while position < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size
                name = os.fsdecode(data[position : position + length].rstrip(b"\0"))
                position += length
                self._tell(number, mask, name)

    def _tell(self, number: int, mask: int, name: str) -> None:
        if mask & _IN_Q_OVERFLOW:
            for on_renamed in list(self._watched.values()):
                on_renamed("")
        elif mask & _IN_MOVED_TO and (found := self._watched.get(number)) is not None:
            found(name)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _failure(limit: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)} (inotify: the limit is {limit})")

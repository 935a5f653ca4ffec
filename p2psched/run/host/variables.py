"""Environment variables of a worker that are others for each task.

The C library keeps every value that `setenv` was ever given (readers may still point to it): with
the number of the task in it, 160 bytes a task for as long as the worker lives. So each variable is
a buffer of our own that is put into the environment once and overwritten from then on, where this
interpreter has ctypes. Values are printable ASCII, without zero bytes.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, Final

VALUE_BYTES_MAX: Final = 200  # a longer one is set in the usual way

Put = Callable[[Any], object]


class Variable:
    """One of them. Tasks may change or remove it: `set` puts it back."""

    __slots__ = ("_buffer", "_data", "_key", "_last", "_name", "_prefix", "_put")

    def __init__(self, name: str) -> None:
        self._name = name
        self._key = name.encode()
        self._prefix = self._key + b"="
        self._last: bytes | None = None
        self._data: dict[bytes, bytes] = {}
        self._buffer: Any = None
        self._put: Put | None = None
        try:
            ctypes = importlib.import_module("ctypes")
            self._data = os.environ._data  # type: ignore[attr-defined]  # behind the mapping
            self._buffer = ctypes.create_string_buffer(len(self._prefix) + VALUE_BYTES_MAX + 1)
            self._put = ctypes.CDLL(None).putenv
        except (ImportError, OSError, AttributeError):
            pass

    def set(self, text: str) -> None:
        """For this process, and for what it starts."""
        value = text.encode()
        if self._put is None or len(value) > VALUE_BYTES_MAX:
            os.environ[self._name] = text
            return
        self._buffer.value = self._prefix + value
        if self._data.get(self._key) is not self._last or self._last is None:
            self._put(self._buffer)  # it is new, or a task has put another one in its place
        self._data[self._key] = self._last = value

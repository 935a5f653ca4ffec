"""A thread that runs errands for the loop, one after another.

For what is handed over at each turn: a pipe there and one back take a third to a half of the CPU
time of an executor with its locks, futures and calls from another thread, and the loop waits less
for the interpreter.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_READ_BYTES: Final = 4_096
_MORE: Final = b"+"
_END: Final = b"."


class Errands(Generic[T]):
    """Make it inside a running loop. What is handed over is bounded by whoever does it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._todo: deque[tuple[Callable[[], T], Callable[[T | Exception], None]]] = deque()
        self._done: deque[tuple[Callable[[T | Exception], None], T | Exception]] = deque()
        self._todo_reader, self._todo_writer = os.pipe()
        self._done_reader, self._done_writer = os.pipe()
        os.set_blocking(self._done_reader, False)
        self._loop.add_reader(self._done_reader, self._on_done)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._closed = False

    def do(self, act: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Call `act` in the thread, then `then` in the loop with what it returned, or raised; not
        after `close`."""
        assert not self._closed
        self._todo.append((act, then))
        os.write(self._todo_writer, _MORE)

    def _run(self) -> None:
        while os.read(self._todo_reader, 1) == _MORE:
            act, then = self._todo.popleft()
            told: T | Exception
            try:
                told = act()
            except Exception as error:  # noqa: BLE001 (the loop is told)
                told = error
            self._done.append((then, told))
            os.write(self._done_writer, _MORE)

    def _on_done(self) -> None:
        os.read(self._done_reader, _READ_BYTES)
        while self._done:
            then, told = self._done.popleft()
            then(told)

    def close(self) -> None:
        """Wait for all that was handed over; nobody is told of it any more. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._done_reader)
        os.write(self._todo_writer, _END)  # to close it is no end where a fork of us holds it
        self._thread.join()
        for end in (self._todo_reader, self._todo_writer, self._done_reader, self._done_writer):
            os.close(end)

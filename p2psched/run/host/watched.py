"""What a worker's task writes while the starter empties its pipes for it, and shows it in files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from ...model.limits import OUTPUT_BYTES_MAX  # noqa: TID252 - see shared.py
from . import capture, folders, frames
from .shared import Shared
from .spool import STREAMS, Spool


class Watched:
    """Of one worker. Its files bear the name of the task that runs when it is begun; if the worker
    turns out to be at another one, they go."""

    def __init__(self, shared: Shared, folder: str) -> None:
        self._shared = shared
        self._folder = folder
        self._captures = (capture.Capture(), capture.Capture())
        self._spools = (Spool(), Spool())
        self._task = (-1, -1)  # batch and index

    def begin(self, body: bytes) -> None:
        """Of a WATCH frame. The flag that makes the worker ask is set already."""
        _, batch, index, grant = frames.WATCHED.unpack_from(body)
        job = body[frames.WATCHED.size :].decode()
        self._task = (batch, index)
        if self._is_at_task():
            path = f"{self._folder}/{folders.name_of(job, index, grant)}"
            for spool, name in zip(self._spools, STREAMS, strict=True):
                spool.open(f"{path}.{name}")

    def _is_at_task(self) -> bool:
        state = self._shared.read()
        return state is not None and state.running and (state.batch, state.index) == self._task

    def read(self, stream: int, descriptor: int) -> bool:
        """Take what is there now, or a part of it. False if there is nothing."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(descriptor, capture.READ_BYTES)
            self._captures[stream].add(data)
            self._spools[stream].write(data)
            return bool(data)
        return False

    def take(self, pipes: Sequence[int], *, is_told: bool, is_whole: bool) -> capture.Output:
        """The task is over. What its result can't bring is kept, and all of it if it has none (not
        `is_told`); nothing if the worker has taken a part before us (not `is_whole`)."""
        is_ours = is_whole and self._is_at_task()
        for stream, descriptor in enumerate(pipes):
            for _ in range(capture.READS_MAX):
                if not self.read(stream, descriptor):
                    break
        output = capture.Output()
        output.stdout, output.stderr = self._captures
        for spool, taken in zip(self._spools, self._captures, strict=True):
            is_more = taken.total > (OUTPUT_BYTES_MAX if is_told else 0)
            spool.end(keep=is_ours and is_more)
            spool.path = ""
        self._captures = (capture.Capture(), capture.Capture())
        return output

"""Results as the caller sees them. Values are opened here, by the caller and nowhere else.

Plain data (None, numbers, text, bytes, and lists and maps of them) travels as MessagePack, which
runs no code when it is opened; everything else as a pickle, which may: look at `is_plain` before
you open the results of somebody whom you would not let run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import msgpack

from p2psched.model import chunks, items
from p2psched.model.errors import TaskFailed
from p2psched.model.ids import JobId, short
from p2psched.model.job import Cause, Segment


class RemoteTraceback(Exception):
    """The traceback of a task, as text, as the cause of the exception that it raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        return f'\n"""\n{self._text}"""'


class TaskResult:
    """How one task ended. `value` raises what the task raised.

    Nothing is unpickled before `value` or `error` is looked at.
    """

    __slots__ = ("_item", "cause", "index", "job")

    def __init__(self, job: JobId, index: int, cause: Cause, item: bytes) -> None:
        self.job = job
        self.index = index
        self.cause = cause
        self._item = item

    def __repr__(self) -> str:
        return f"<task {short(self.job)}/{self.index}: {self.cause}>"

    @property
    def ok(self) -> bool:
        return self.cause is Cause.OK

    @property
    def value(self) -> object:
        """What the function returned (None for a program). Raises what it raised, with the
        traceback of the task as its cause, or TaskFailed."""
        if not self.ok:
            raise self.error or AssertionError
        _, value, _, _ = items.unpack(self._item)
        return open_value(value) if value else None

    @property
    def is_plain(self) -> bool:
        """True if looking at `value` runs no code of whoever made it."""
        _, value, _, _ = items.unpack(self._item)
        return self.ok and not is_pickle(value)

    @property
    def error(self) -> Exception | None:
        """The task's exception; TaskFailed if it ended otherwise or its exception can't travel;
        None if it succeeded."""
        if self.ok:
            return None
        header, value, _, stderr = items.unpack(self._item)
        traceback = str(header.get("traceback", ""))
        failure: Exception | None = None
        if value:
            try:
                found = pickle.loads(value)  # noqa: S301, TID251 (the caller's own data)
            except Exception:  # noqa: BLE001 (a class that is missing here: the text is left)
                found = None
            failure = found if isinstance(found, Exception) else None
        if failure is None:
            failure = TaskFailed(
                self._describe(header, stderr), task=f"{self.job}/{self.index}", cause=self.cause
            )
        if traceback:
            failure.__cause__ = RemoteTraceback(traceback)
        return failure

    @property
    def stdout(self) -> bytes:
        """What the task printed; the middle is missing if it was much."""
        return items.unpack(self._item)[2]

    @property
    def stderr(self) -> bytes:
        return items.unpack(self._item)[3]

    @property
    def header(self) -> items.Header:
        """`exit`, `signal`, `stdout_total` and so on: see `model.items`."""
        return items.unpack(self._item)[0]

    def _describe(self, header: items.Header, stderr: bytes) -> str:
        text = f"task {short(self.job)}/{self.index} ended by {self.cause}"
        if "exit" in header:
            text += f", exit code {header['exit']}"
        if "signal" in header:
            text += f", signal {header['signal']}"
        if "type" in header:
            text += f": {header['type']}"
        if header.get("message"):
            text += f": {header['message']}"
        last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return f"{text}: {last[:500]}" if last and "message" not in header else text


def open_value(value: bytes) -> object:
    """Raises whatever a pickle's code raises; ValueError for damaged MessagePack."""
    if is_pickle(value):
        return pickle.loads(value)  # noqa: S301, TID251 (the caller's own data)
    opened: object = msgpack.unpackb(value, raw=False, max_str_len=len(value))
    return opened


def is_pickle(value: bytes) -> bool:
    """True if opening a value may run code of whoever made it."""
    # Protocol 2 and later. In MessagePack 0x80 is the empty map, which has nothing behind it.
    return len(value) > 1 and value[0] == 0x80


def results_of(job: JobId, segment: Segment) -> Iterator[TaskResult]:
    """The tasks of one segment, in order."""
    indices = range(segment.start, segment.stop)
    if segment.data:
        for index, item in zip(indices, chunks.unpack(segment.data), strict=True):
            yield TaskResult(job, index, segment.cause, item)

"""Results as the caller sees them. Values are opened here, by the caller and nowhere else.

Plain data (None, numbers, text, bytes, and lists and maps of them) travels as MessagePack, which
runs no code when it is opened; everything else as a pickle, which may: look at `is_plain` before
you open the results of somebody whom you would not let run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import msgpack

from p2psched.model import chunks, items, values
from p2psched.model.blob import outputs_of
from p2psched.model.errors import P2PSchedError, TaskFailed, UsageError
from p2psched.model.ids import JobId, short
from p2psched.model.job import Cause, Segment
from p2psched.run.host.files import File, Ref, file_of
from p2psched.run.host.pickling import PYTHON, Opener, Source, is_pickle

__all__ = ["RemoteTraceback", "TaskResult", "is_pickle", "open_value", "results_of"]


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

    __slots__ = ("_item", "_source", "cause", "index", "job")

    def __init__(
        self, job: JobId, index: int, cause: Cause, item: bytes, source: Source | None = None
    ) -> None:
        """`source` has the blobs that the item names: see `client.downloads`."""
        self._source = source
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
        header, value, _, _ = items.unpack(self._item)
        if not value:
            return None
        try:
            return open_value(value, self._source)
        except P2PSchedError:
            raise
        except Exception as error:
            python = header.get("python")
            if python is None:
                raise
            raise UsageError(
                f"task {short(self.job)}/{self.index} ran on Python {python} and this is {PYTHON}: "
                "its value can't be opened here; use the same minor version on both, or return "
                "plain data"
            ) from error

    @property
    def is_plain(self) -> bool:
        """True if looking at `value` runs no code of whoever made it. One that is large is
        known only once it is here."""
        _, value, _, _ = items.unpack(self._item)
        if not self.ok:
            return False
        if values.kind_of(value) == values.BLOB and self._source is not None:
            return not is_pickle(self._source.map(values.blob_of(value)))
        return not is_pickle(value)

    @property
    def has_blobs(self) -> bool:
        """True if something of the result is no part of its item."""
        header, value, _, _ = items.unpack(self._item)
        return "outputs" in header or values.names_blobs(value)

    @property
    def value_refs(self) -> tuple[Ref, ...]:
        """Blobs that must be here before `value` can be opened; files are not among them."""
        _, value, _, _ = items.unpack(self._item)
        if values.kind_of(value) == values.NEEDS:
            _, value = values.needs_of(value)  # type: ignore[assignment]  # a view of it
        return (values.blob_of(value),) if values.kind_of(value) == values.BLOB else ()

    @property
    def size(self) -> int:
        """Bytes of the value, wherever they are."""
        _, value, _, _ = items.unpack(self._item)
        return sum(size for _, size in self.value_refs) or len(value)

    @property
    def files(self) -> dict[str, File]:
        """What a program handed over (`outputs`), by name."""
        header, _, _, _ = items.unpack(self._item)
        return {name: self._file(name, (ref.digest, ref.size)) for name, ref in outputs_of(header)}

    def _file(self, name: str, ref: Ref) -> File:
        return file_of(name, ref) if self._source is None else self._source.file(name, ref)

    def with_source(self, source: Source) -> TaskResult:
        """The same result with its blobs at hand."""
        return TaskResult(self.job, self.index, self.cause, self._item, source)

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


def open_value(value: bytes, source: Source | None = None) -> object:
    """Raises whatever a pickle's code raises; ValueError for damaged MessagePack, and for a value
    in a blob if there is no source of blobs. Arrays are writable, and nobody else's."""
    return Opener(source, _open_plain).open(value)


def _open_plain(value: bytes | bytearray | memoryview) -> object:
    opened: object = msgpack.unpackb(value, raw=False, max_str_len=len(value))
    return opened


def results_of(job: JobId, segment: Segment) -> Iterator[TaskResult]:
    """The tasks of one segment, in order."""
    indices = range(segment.start, segment.stop)
    if segment.data:
        for index, item in zip(indices, chunks.unpack(segment.data), strict=True):
            yield TaskResult(job, index, segment.cause, item)

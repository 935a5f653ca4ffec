"""Ended tasks as the command line sees them: outputs and causes, and values as packed bytes.

No value is unpickled here, since that would run whatever code a task put into it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from p2psched.client.client import Client
from p2psched.client.logs import Stream, stream_of
from p2psched.client.results import is_pickle
from p2psched.model import chunks, items, values
from p2psched.model.blob import BlobRef, outputs_of
from p2psched.model.errors import ProtocolError
from p2psched.model.ids import JobId, short
from p2psched.model.job import Cause, Segment
from p2psched.model.messages import FetchResults, JobView, ResultPage


def split_task(text: str) -> tuple[str, int | None]:
    """`ID/7` is task 7 of a job; anything else names a job."""
    head, slash, tail = text.rpartition("/")
    if slash and head and tail.isascii() and tail.isdecimal() and len(tail) <= 10:
        return head, int(tail)
    return text, None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """How one task ended. `stdout` and `stderr` may lack their middle: see `rest`."""

    job: JobId
    index: int
    cause: Cause
    header: items.Header
    value: bytes
    stdout: bytes
    stderr: bytes

    @property
    def ok(self) -> bool:
        return self.cause is Cause.OK

    @property
    def name(self) -> str:
        """As people type it."""
        return f"{short(self.job)}/{self.index}"

    def rest(self, stream: str, offset: int = 0) -> bytes:
        """What `stream` ("stdout" or "stderr") holds from byte `offset` of what was written on. A
        gap in the middle is said in a line of its own."""
        return self.stream(stream).rest(offset)

    def stream(self, name: str) -> Stream:
        """What is kept of it."""
        return stream_of(self.header, name, self.stdout if name == "stdout" else self.stderr)

    @property
    def outputs(self) -> list[tuple[str, BlobRef]]:
        """Files that a program handed over. Raises ProtocolError."""
        try:
            return outputs_of(self.header)
        except ValueError as error:
            raise _unreadable(self.job, self.index, error) from error

    @property
    def refs(self) -> list[BlobRef]:
        """Blobs that the value is in, or refers to. Raises ProtocolError."""
        try:
            return [BlobRef(*ref) for ref in values.refs_of(self.value)]
        except ValueError as error:
            raise _unreadable(self.job, self.index, error) from error

    @property
    def value_kind(self) -> str:
        """ "plain", "pickle", "large" (known only once it is here), or "" if there is none."""
        if not self.ok or not self.value:
            return ""
        if self.refs and values.kind_of(self._inner) == values.BLOB:
            return "large"
        return "pickle" if is_pickle(self.value) else "plain"

    @property
    def value_bytes(self) -> int:
        """Of the packed value, wherever it is, with the files in it."""
        inline = 0 if values.kind_of(self._inner) == values.BLOB else len(self._inner)
        return inline + sum(ref.size for ref in self.refs)

    @property
    def files_in_value(self) -> list[BlobRef]:
        if values.kind_of(self.value) != values.NEEDS:
            return []
        return [BlobRef(*ref) for ref in values.needs_of(self.value)[0]]

    @property
    def _inner(self) -> values.Buffer:
        needs = values.kind_of(self.value) == values.NEEDS
        return values.needs_of(self.value)[1] if needs else self.value

    def total(self, stream: str) -> int:
        """Bytes that the task wrote."""
        return self.stream(stream).total


def open_item(job: JobId, index: int, cause: str, item: bytes) -> TaskEnd:
    """Raises ProtocolError for an item that is none."""
    try:
        header, value, stdout, stderr = items.unpack(item)
    except ValueError as error:
        raise _unreadable(job, index, error) from error
    return TaskEnd(
        job=job,
        index=index,
        cause=Cause(cause),
        header=header,
        value=value,
        stdout=stdout,
        stderr=stderr,
    )


def open_segment(job: JobId, segment: Segment) -> Iterator[TaskEnd]:
    """The tasks of a segment, in order; none for results that left no item (cancelled ones)."""
    if not segment.data:
        return
    try:
        found = chunks.unpack(segment.data)
    except ValueError as error:
        raise _unreadable(job, segment.start, error) from error
    for index, item in zip(range(segment.start, segment.stop), found, strict=False):
        yield open_item(job, index, segment.cause, item)


async def ended_so_far(client: Client, view: JobView) -> AsyncIterator[TaskEnd]:
    """Every task whose result was committed when `view` was made, in the order of commits."""
    position = 0
    while position < view.segments:
        page = await client.session.call(FetchResults(view.job, position), ResultPage)
        for at, segment in zip(page.positions, page.segments, strict=True):
            if at < view.segments:
                for task in open_segment(view.job, segment):
                    yield task
        if page.next_position <= position:
            return
        position = page.next_position  # not one a segment: results that were run again leave gaps


async def first_failures(client: Client, view: JobView, *, limit: int) -> list[TaskEnd]:
    """Some of the tasks that failed, those that failed first."""
    found: list[TaskEnd] = []
    if view.failed == 0:
        return found
    async for task in ended_so_far(client, view):
        if not task.ok and task.cause is not Cause.CANCELLED:
            found.append(task)
            if len(found) >= limit:
                break
    return found


def _unreadable(job: JobId, index: int, fault: ValueError) -> ProtocolError:
    return ProtocolError(
        f"the result of task {short(job)}/{index} can't be read ({fault}): "
        "use the version of p2psched that the cluster runs"
    )

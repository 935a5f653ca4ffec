"""Exports: the final results of a job as a file for other programs.

Results come page by page from whichever peer answers and are written as they come, so memory is
flat however many there are. Nothing stands at the path before the export is whole, and what is
there already is only replaced if that is asked for. An export shows the job as it is when it
begins: what ends later is not in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TextIO

from p2psched.client.export_files import (
    CSV,
    FOLDER,
    FORMATS,
    JSONL,
    MARK,
    SQLITE,
    CsvWriter,
    FolderWriter,
    JsonLinesWriter,
    SqliteWriter,
    Writer,
    format_of,
)
from p2psched.client.export_rows import Origin, Row, cancelled_rows, rows_of
from p2psched.model.blob import BlobRef
from p2psched.model.commands import Recorded
from p2psched.model.errors import ResultLost, UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.model.messages import History, JobView, ResultPage
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.store.files import refusing, sync_folder

CANCELLED_ROWS: Final = 1000  # written at once


class Exportable(Protocol):
    """A job, as far as an export asks it."""

    @property
    def id(self) -> JobId: ...

    async def show(self) -> JobView: ...

    def pages(self, *, position: int = 0) -> AsyncIterator[ResultPage]: ...

    async def history(self, *, after: int = 0, limit: int = 1000) -> History: ...

    async def download(self, ref: BlobRef, path: Path) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written, and the job as it was. `lost`: large results that no peer had any more."""

    view: JobView
    rows: int
    format: str
    path: Path
    lost: int = 0


async def export_job(
    job: Exportable, path: str | Path, *, form: str | None = None, overwrite: bool = False
) -> Exported:
    """Write what has ended of a job to `path`; `form` is one of FORMATS, by default what the
    suffix says (none: "dir"). Raises UsageError if something is there already and not `overwrite`,
    Refused if the disk won't take it. Cancelled or failed, it leaves nothing behind."""
    target, chosen = await asyncio.to_thread(_prepare, path, form, overwrite)
    aside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.new")
    try:
        with refusing(f"export to {target}"):
            with _open(aside, chosen) as writer:
                view, rows, lost = await write_rows(job, writer)
            await asyncio.to_thread(_put, aside, target, overwrite)
    finally:
        await asyncio.to_thread(_remove, aside)
    return Exported(view=view, rows=rows, format=chosen, path=target, lost=lost)


async def export_to_stream(job: Exportable, stream: TextIO, *, form: str) -> Exported:
    """The same on an open text stream of UTF-8; only "jsonl" and "csv" can be streamed."""
    if form not in (JSONL, CSV):
        raise UsageError(f"{form!r} is no stream: name a file to export to")
    writer = JsonLinesWriter(stream) if form == JSONL else CsvWriter(stream)
    view, rows, _ = await write_rows(job, writer)
    return Exported(view=view, rows=rows, format=form, path=Path("-"))


async def write_rows(job: Exportable, writer: Writer) -> tuple[JobView, int, int]:
    """All rows of a job in the order in which they were committed, then those of its cancelled
    tasks. Returns the job as it was when that began, how many rows there are, and how many large
    results were lost."""
    view = await job.show()
    origins = _Origins(job)
    ended: list[TaskSet] = []  # one of each segment; kept only if the others are asked for below
    rows = lost = 0
    if view.segments:
        async for page in job.pages():
            segments = [
                (segment, await origins.of(position))
                for segment, position in zip(page.segments, page.positions, strict=True)
                if position < view.segments
            ]
            rows += await asyncio.to_thread(writer.add, _rows(job.id, segments))
            for segment, _ in segments:
                lost += await _fetch(job, writer, segment)
            if view.cancelled:
                ended += [segment.tasks for segment, _ in segments]
            if page.next_position >= view.segments:
                break
    if view.cancelled:
        left = view.task_set - _union(ended)
        while left:
            part = left.take(CANCELLED_ROWS)
            rows += await asyncio.to_thread(writer.add, cancelled_rows(part))
            left = left - part
    await asyncio.to_thread(writer.finish)
    return view, rows, lost


async def _fetch(job: Exportable, writer: Writer, segment: Segment) -> int:
    """Large results, for a writer that has a place for them. Returns how many are lost."""
    lost = 0
    for blob in segment.blobs:
        place = writer.place(blob)
        if place is None:
            continue
        try:
            await asyncio.to_thread(place.parent.mkdir, exist_ok=True)
            await job.download(blob.ref, place)
        except ResultLost:
            lost += 1
            await asyncio.to_thread(place.with_name(f"{place.name}.lost").touch)
    return lost


def _union(parts: list[TaskSet]) -> TaskSet:
    """Pairwise, so that many parts cost n log n."""
    while len(parts) > 1:
        odd = parts[len(parts) // 2 * 2 :]
        parts = [a | b for a, b in zip(parts[::2], parts[1::2], strict=False)] + odd
    return parts[0] if parts else EMPTY


def _rows(job: JobId, segments: list[tuple[Segment, Origin | None]]) -> Iterator[Row]:
    for segment, origin in segments:
        yield from rows_of(job, segment, origin)


class _Origins:
    """Who brought each segment, from the job's history. Results and history are both in the order
    of commits, so one is read along with the other, and what is behind is dropped."""

    def __init__(self, job: Exportable) -> None:
        self._job = job
        self._after = 0
        self._more = True
        self._known: deque[tuple[int, Origin]] = deque()  # at most what a page of history holds
        self._newest = -1

    async def of(self, position: int) -> Origin | None:
        """Positions are asked for in order, each as often as it has parts."""
        while self._more and self._newest < position:
            await self._read()
        while self._known and self._known[0][0] < position:
            self._known.popleft()
        if self._known and self._known[0][0] == position:
            return self._known[0][1]
        return None

    async def _read(self) -> None:
        page = await self._job.history(after=self._after)
        for stamped in page.events:
            event = stamped.event
            if isinstance(event, Recorded):
                self._newest = event.position
                origin = Origin(event.grant, event.peer, stamped.wall_ms)
                self._known.append((event.position, origin))
        self._more = page.more and bool(page.events)
        if page.events:
            self._after = page.events[-1].index


# --- the file ------------------------------------------------------------------------------------


def _prepare(path: str | Path, form: str | None, overwrite: bool) -> tuple[Path, str]:
    """Where to, and in which format."""
    target = Path(path).expanduser().absolute()
    if form not in (*FORMATS, None):
        raise UsageError(f"{form!r} is no format of an export: choose one of {', '.join(FORMATS)}")
    _check_free(target, overwrite=overwrite)
    return target, form or format_of(target)


def _check_free(target: Path, *, overwrite: bool) -> None:
    if not target.name or not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent} to export to: make it first")
    if target.exists() and not (target.is_file() or target.is_dir()):
        # A file would take the place of the device, for everybody on this machine.
        raise UsageError(f"{target} is no plain file: choose another name, or name none for stdout")
    if not overwrite and os.path.lexists(target):
        raise UsageError(f"{target} is there already: choose another name, or replace it (--force)")
    if target.is_dir() and not (target / MARK).is_file():
        raise UsageError(f"{target} is a folder that no export made: choose another name")


@contextlib.contextmanager
def _open(aside: Path, chosen: str) -> Iterator[Writer]:
    with contextlib.ExitStack() as stack:
        writer: Writer
        if chosen == SQLITE:
            writer = SqliteWriter(aside)
        elif chosen == FOLDER:
            writer = FolderWriter(aside)
        else:
            stream = stack.enter_context(aside.open("x", encoding="utf-8", newline=""))
            writer = JsonLinesWriter(stream) if chosen == JSONL else CsvWriter(stream)
        stack.callback(writer.close)
        yield writer


def _put(aside: Path, target: Path, overwrite: bool) -> None:
    """Move the whole export to where it belongs. Blocks."""
    if aside.is_file():
        descriptor = os.open(aside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    _check_free(target, overwrite=overwrite)  # it may have come meanwhile
    old = target.with_name(f"{aside.name}.old")
    if target.is_dir() and not target.is_symlink():
        target.rename(old)
    try:
        aside.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    _remove(old)
    sync_folder(target.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

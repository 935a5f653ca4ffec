"""The arguments of a batch, in parts that a frame can carry.

Those that are in the job's entry are cut from its chunks; those that travelled as a blob are read
from it range by range (verified by every read), so that a job may have gigabytes of arguments and
its peers need a megabyte of memory. The blobs that single arguments name are brought here before
the part that needs them leaves for a worker.
"""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from p2psched.model import chunks, limits, values
from p2psched.model.blob import BlobRef
from p2psched.model.errors import NoSpace, Unavailable
from p2psched.model.execution import Batch
from p2psched.model.job import FunctionWork, ProgramWork, blobs_of
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.ports.blobs import Blobs
from p2psched.run.host import frames

# Of arguments that travel to a worker at once, unless one task alone has more.
PART_BYTES_MAX: Final = 1 * limits.MIB
JOBS_OPEN_MAX: Final = 16  # whose chunk ends are kept; others are read again
FETCH_TRIES: Final = 5
_U64: Final = 8


@dataclass(frozen=True, slots=True)
class Part:
    """Arguments of some tasks of a batch; `last` if the batch has no more."""

    pieces: list[frames.Piece]
    tasks: TaskSet
    last: bool


def inline_part(work: FunctionWork, tasks: TaskSet) -> Part:
    """All of a batch whose arguments are in the job's entry. Raises ValueError."""
    pieces: list[frames.Piece] = []
    for number, start, stop in _by_chunk(work, tasks):
        if number >= len(work.chunks):
            raise ValueError(f"no arguments for task {start}")
        base = number * work.chunk_tasks
        data = chunks.cut(work.chunks[number], start - base, stop - base)
        pieces.append((start, stop, 0, 0, data))
    return Part(pieces, tasks, last=True)


def _by_chunk(work: FunctionWork, tasks: TaskSet) -> Iterator[tuple[int, int, int]]:
    """Number of the chunk, start and stop of tasks in it."""
    for start, stop in tasks.ranges:
        while start < stop:
            number = start // work.chunk_tasks
            end = min(stop, (number + 1) * work.chunk_tasks)
            yield number, start, end
            start = end


class ArgumentReader:
    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._ends: OrderedDict[BlobRef, tuple[int, ...]] = OrderedDict()

    def is_at_hand(self, batch: Batch) -> bool:
        """True if all that the batch needs is here, and its arguments are in the job itself: it can
        start at once, as most batches after a job's first can."""
        work = batch.spec.work
        if isinstance(work, FunctionWork) and (work.arguments is not None or work.blobs):
            return False
        return all(map(self._blobs.is_here, blobs_of(work)))

    async def parts(self, batch: Batch) -> AsyncIterator[Part]:
        """Each is ready to run: what it needs is on this peer's disk. Raises ValueError for
        damaged arguments, ResultLost if a blob is nowhere, NoSpace without room for it."""
        work = batch.spec.work
        if isinstance(work, ProgramWork):
            refs = [file.data for file in work.files if isinstance(file.data, BlobRef)]
            await self._fetch(refs)
            yield Part([], batch.tasks, last=True)
            return
        shared = [work.code, work.modules, work.arguments]
        await self._fetch([part for part in shared if isinstance(part, BlobRef)])
        if work.arguments is None:
            part = inline_part(work, batch.tasks)
            await self._bring(work, part.pieces)
            yield part
            return
        left = batch.tasks
        pieces: list[frames.Piece] = []
        async for piece in self._pieces(work, work.arguments, batch):
            if pieces and sum(len(data) for *_, data in [*pieces, piece]) > PART_BYTES_MAX:
                yield await self._part(work, pieces, left)
                left -= _tasks_of(pieces)
                pieces = []
            pieces.append(piece)
        yield await self._part(work, pieces, left)

    async def _part(self, work: FunctionWork, pieces: list[frames.Piece], left: TaskSet) -> Part:
        await self._bring(work, pieces)
        tasks = _tasks_of(pieces)
        return Part(pieces, tasks, last=tasks == left)

    async def _bring(self, work: FunctionWork, pieces: list[frames.Piece]) -> None:
        """The blobs that the arguments name. A job says whether some do."""
        if work.blobs:
            found = [
                BlobRef(*ref)
                for *_, data in pieces
                for item in chunks.unpack(data)
                for ref in values.refs_of(item)
            ]
            await self._fetch(list(dict.fromkeys(found)))

    async def _fetch(self, refs: list[BlobRef]) -> None:
        """Busy is over soon. On a full disk nothing waits: the tasks go to another peer."""
        for attempt in range(1, FETCH_TRIES + 1):
            try:
                await self._blobs.fetch(refs)
            except NoSpace:
                raise
            except Unavailable as error:
                if attempt == FETCH_TRIES:
                    raise
                await asyncio.sleep(error.retry_after_s)
            else:
                return

    async def _pieces(
        self, work: FunctionWork, ref: BlobRef, batch: Batch
    ) -> AsyncIterator[frames.Piece]:
        """Each at most PART_BYTES_MAX, or of one task."""
        ends = await self._chunk_ends(work, ref, len(batch.spec.tasks))
        for number, start, stop in _by_chunk(work, batch.tasks):
            if number >= len(ends):
                raise ValueError(f"no arguments for task {start}")
            begin = ends[number - 1] if number else 0
            base = number * work.chunk_tasks
            async for low, high, data in self._cut(
                ref, begin, ends[number], start - base, stop - base
            ):
                yield base + low, base + high, 0, 0, data

    async def _cut(
        self, ref: BlobRef, begin: int, end: int, start: int, stop: int
    ) -> AsyncIterator[tuple[int, int, bytes]]:
        """Values `start` to `stop - 1` of the chunk at `begin`, as chunks that are not too long."""
        if end - begin <= PART_BYTES_MAX // 4:
            chunk = await self._blobs.read(ref, begin, end - begin)
            yield start, stop, chunks.cut(chunk, start, stop)
            return
        # Layout of a chunk: `model.chunks`.
        (count,) = struct.unpack("<I", await self._blobs.read(ref, begin, 4))
        if not stop <= count <= (end - begin) // 4:
            raise ValueError(f"a chunk of arguments holds {count} values and not {stop}")
        head = await self._blobs.read(ref, begin + 4 + 4 * start, 4 * (stop - start + 1))
        offsets = struct.unpack(f"<{stop - start + 1}I", head)
        data_at = begin + 8 + 4 * count
        if data_at + offsets[-1] > end or list(offsets) != sorted(offsets):
            raise ValueError("damaged arguments: offsets run backwards")
        low = start
        while low < stop:
            high = low + 1
            first = offsets[low - start]
            while high < stop and offsets[high + 1 - start] - first <= PART_BYTES_MAX:
                high += 1
            bounds = offsets[low - start : high - start + 1]
            data = await self._blobs.read(ref, data_at + first, bounds[-1] - first)
            spans = pairwise(bounds)
            yield low, high, chunks.pack([data[a - first : b - first] for a, b in spans])
            low = high

    async def _chunk_ends(self, work: FunctionWork, ref: BlobRef, tasks: int) -> tuple[int, ...]:
        known = self._ends.get(ref)
        if known is not None:
            self._ends.move_to_end(ref)
            return known
        count = -(-tasks // work.chunk_tasks)
        if ref.size < count * _U64:
            raise ValueError("damaged arguments: they are too short")
        at = ref.size - count * _U64
        data = await self._blobs.read(ref, at, count * _U64)
        ends = struct.unpack(f"<{count}Q", data)
        if ends[-1] != at or list(ends) != sorted(ends):
            raise ValueError("damaged arguments: their ends don't agree")
        self._ends[ref] = ends
        if len(self._ends) > JOBS_OPEN_MAX:
            self._ends.popitem(last=False)
        return ends


def _tasks_of(pieces: list[frames.Piece]) -> TaskSet:
    tasks = EMPTY
    for start, stop, *_ in pieces:
        tasks |= TaskSet.of(start, stop)
    return tasks

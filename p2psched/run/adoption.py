"""Large results on their way from a worker's spill folder into the peer's store.

A result is told only when its blobs are kept: durable, under their names. Many results share one
call of the store, and so its syncs: what piles up while one call runs goes with the next. What
waits is bounded by the results of the batches that run, and the end of a batch waits behind them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Set
from pathlib import Path
from typing import Final

from p2psched.model import chunks, items, values
from p2psched.model.blob import BlobRef, ResultBlob, outputs_of
from p2psched.model.errors import NoSpace, ResultLost, Unavailable
from p2psched.model.execution import BatchEvent, Ended, Progress
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import TaskSet
from p2psched.ports.blobs import Blobs

FILES_PER_CALL: Final = 1024

Lost = dict[BlobRef, tuple[Cause, str]]  # what could not be kept, and why


def result_blobs(start: int, chunk: bytes) -> tuple[ResultBlob, ...]:
    """The blobs that the items of a chunk name; values stay closed. Raises ValueError.

    A task has one blob of each name: the files in a value are named by their digests.
    """
    found: list[ResultBlob] = []
    for index, item in enumerate(chunks.unpack(chunk), start):
        header, value, _, _ = items.unpack(item)
        refs = values.refs_of(value)
        if values.kind_of(value) == values.NEEDS:
            files, inner = values.needs_of(value)
            found += (ResultBlob(index, ref[0].hex(), BlobRef(*ref)) for ref in files)
            refs = values.refs_of(inner)
        found += (ResultBlob(index, "", BlobRef(*ref)) for ref in refs)
        found += (ResultBlob(index, name, ref) for name, ref in outputs_of(header))
    return tuple(dict.fromkeys(found))


class Adopter:
    def __init__(self, blobs: Blobs, spill: Path, emit: Callable[[BatchEvent], None]) -> None:
        self._blobs = blobs
        self._spill = spill
        self._emit = emit
        self._waiting: list[BatchEvent] = []
        self._of_batch: Counter[int] = Counter()
        self._changed = asyncio.Event()

    def add(self, event: BatchEvent) -> None:
        """Emitted when the blobs of its segments are kept, in order."""
        self._waiting.append(event)
        self._of_batch[event.batch] += 1
        self._changed.set()

    @property
    def batches(self) -> Set[int]:
        """Of whose events some wait here."""
        return self._of_batch.keys()

    def holds(self, batch: int) -> bool:
        """True while an event of this batch waits here."""
        return batch in self._of_batch

    async def run(self) -> None:
        """Until it is cancelled; then what waits is forgotten, like all that the pool had."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                events = self._next_events()
                lost = await self._keep({blob.ref for event in events for blob in _blobs_of(event)})
                for event in events:
                    self._of_batch[event.batch] -= 1
                    if not self._of_batch[event.batch]:
                        del self._of_batch[event.batch]
                    self._emit(_without(event, lost) if lost else event)

    def _next_events(self) -> list[BatchEvent]:
        files, count = 0, 0
        for event in self._waiting:
            files += len(_blobs_of(event))
            if count and files > FILES_PER_CALL:
                break
            count += 1
        events = self._waiting[:count]
        del self._waiting[:count]
        return events

    async def _keep(self, refs: set[BlobRef]) -> Lost:
        """Take files into the store. Returns those that could not be kept, and why."""
        ordered = sorted(refs, key=lambda ref: ref.digest)
        try:
            await self._adopt(ordered)
        except (Unavailable, ResultLost, ValueError, OSError):
            pass
        else:
            return {}
        lost: Lost = {}
        for ref in ordered:  # one by one: the others may have room
            try:
                await self._adopt([ref])
            except (Unavailable, ResultLost, ValueError, OSError) as error:
                full = isinstance(error, NoSpace)
                lost[ref] = Cause.NO_SPACE if full else Cause.TOO_LARGE, str(error)
                (self._spill / str(ref)).unlink(missing_ok=True)
        return lost

    async def _adopt(self, refs: list[BlobRef]) -> None:
        """Two tasks may have made the same bytes, or a task returned what it was given: then there
        is one file, or none."""
        paths = [self._spill / str(ref) for ref in refs]
        made = await asyncio.to_thread(lambda: [path.exists() for path in paths])
        files = []
        for ref, path, is_new in zip(refs, paths, made, strict=True):
            if is_new:
                files.append((ref, path))
            elif not self._blobs.is_here(ref):
                raise ResultLost(f"blob {ref} is not where the task has put it")
        if files:
            await self._blobs.adopt(files)


def _blobs_of(event: BatchEvent) -> list[ResultBlob]:
    match event:
        case Ended():
            return []
        case Progress(segments=segments):
            return [blob for segment in segments for blob in segment.blobs]


def _without(event: BatchEvent, lost: Lost) -> BatchEvent:
    """The same event, where tasks whose blobs are lost have failed."""
    match event:
        case Ended():
            return event
        case Progress(segments=segments):
            parts = [part for segment in segments for part in _failed(segment, lost)]
            return Progress(event.batch, tuple(parts))


def _failed(segment: Segment, lost: Lost) -> list[Segment]:
    why = {blob.index: lost[blob.ref] for blob in segment.blobs if blob.ref in lost}
    if not why:
        return [segment]
    parts = []
    for index in segment.tasks:
        (part,) = segment.parts(TaskSet.of(index, index + 1))
        if part.start in why:
            cause, reason = why[part.start]
            text = f"the result was made and could not be kept on this peer: {reason}"
            data = chunks.pack([items.pack({"message": text})])
            part = Segment(part.start, part.stop, cause, data, part.busy_us)
        parts.append(part)
    return parts

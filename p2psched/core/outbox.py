"""Results of an owner on their way to the ledger: some wait for copies of what is large in them,
the others leave, one round at a time; what was revoked is never proposed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from p2psched.core.owned import Uncopied
from p2psched.core.pieces import entry_size
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import Complete, Grant
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.model.limits import ENTRY_BYTES_MAX, GIB, MIB
from p2psched.model.reconcile import KeptResult
from p2psched.model.taskset import TaskSet

OUTBOX_BYTES_MAX: Final = 64 * MIB  # results that wait for the ledger; beyond it nothing starts
UNCOPIED_BYTES_MAX: Final = GIB  # large results that wait for their copies; likewise
_ROUND_BYTES_MAX: Final = ENTRY_BYTES_MAX // 2


class Outbox:
    def __init__(self) -> None:
        self._ready: deque[tuple[JobId, Grant, Segment]] = deque()
        self._ready_bytes = 0
        self._uncopied: dict[int, Uncopied] = {}
        self._next_copy = 1
        self._in_flight: dict[int, Complete] = {}  # request -> what it proposes
        self.journal: list[KeptResult] | None = None  # what came since somebody took it, if he does

    @property
    def is_full(self) -> bool:
        uncopied_bytes = sum(waiting.blob_bytes for waiting in self._uncopied.values())
        return self._ready_bytes > OUTBOX_BYTES_MAX or uncopied_bytes > UNCOPIED_BYTES_MAX

    def post(self, job: JobId, grant: Grant, segment: Segment) -> None:
        if self.journal is not None:
            self.journal.append(KeptResult(job, grant, segment))
        self._post(job, grant, segment)

    def _post(self, job: JobId, grant: Grant, segment: Segment) -> None:
        self._ready.append((job, grant, segment))
        self._ready_bytes += len(segment.data)

    def await_copies(self, job: JobId, grant: Grant, segment: Segment, copies: int) -> int:
        """The number that `on_copied` names."""
        if self.journal is not None:
            self.journal.append(KeptResult(job, grant, segment, copies))
        number, self._next_copy = self._next_copy, self._next_copy + 1
        self._uncopied[number] = Uncopied(job, grant, segment, copies)
        return number

    def on_copied(self, number: int, blobs: Iterable[ResultBlob]) -> None:
        waiting = self._uncopied.pop(number)
        found = {(blob.index, blob.name): blob for blob in blobs}
        for segment in waiting.segments:  # without what was revoked meanwhile
            held = tuple(found[blob.index, blob.name] for blob in segment.blobs)
            self._post(waiting.job, waiting.grant, msgspec.structs.replace(segment, blobs=held))

    def revoke(self, job: JobId, grant: Grant, tasks: TaskSet) -> TaskSet:
        """Whose results were here. Those that have left already are refused by the ledger."""
        mine = [part for j, g, part in self._kept_parts() if (j, g) == (job, grant)]
        gone = TaskSet.union(mine) & tasks
        if not gone.ranges:
            return gone
        kept = [
            (j, g, part)
            for j, g, segment in self._ready
            for part in (
                [segment] if (j, g) != (job, grant) else segment.parts(segment.tasks - tasks)
            )
        ]
        self._ready = deque(kept)
        self._ready_bytes = sum(len(segment.data) for _, _, segment in kept)
        for waiting in self._uncopied.values():
            if (waiting.job, waiting.grant) == (job, grant):
                waiting.segments = [
                    part
                    for segment in waiting.segments
                    for part in segment.parts(segment.tasks - tasks)
                ]
        return gone

    def next_round(self) -> list[Complete]:
        """What to propose now; empty while a round is in flight."""
        if self._in_flight or not self._ready:
            return []
        size = 0
        groups: dict[tuple[JobId, Grant], list[Segment]] = {}
        while self._ready:
            job, grant, segment = self._ready[0]
            size += entry_size(segment)
            if groups and size > _ROUND_BYTES_MAX:
                break
            groups.setdefault((job, grant), []).append(segment)
            self._ready.popleft()
            self._ready_bytes -= len(segment.data)
        return [Complete(job, grant, tuple(parts)) for (job, grant), parts in groups.items()]

    def proposed(self, request: int, command: Complete) -> None:
        self._in_flight[request] = command

    def on_outcome(self, request: int) -> Complete | None:
        """What was proposed so, if it was one of these."""
        return self._in_flight.pop(request, None)

    def in_flight(self, request: int) -> Complete | None:
        return self._in_flight.get(request)

    def parts(self) -> Iterator[tuple[JobId, Grant, TaskSet]]:
        """All that the ledger has not judged."""
        yield from self._kept_parts()
        for command in self._in_flight.values():
            for segment in command.segments:
                yield command.job, command.grant, segment.tasks

    def results(self) -> list[KeptResult]:
        """The same, whole."""
        found = [KeptResult(job, grant, segment) for job, grant, segment in self._ready]
        for waiting in self._uncopied.values():
            job, grant, copies = waiting.job, waiting.grant, waiting.copies
            found += [KeptResult(job, grant, segment, copies) for segment in waiting.segments]
        for command in self._in_flight.values():
            found += [KeptResult(command.job, command.grant, s) for s in command.segments]
        return found

    def _kept_parts(self) -> Iterator[tuple[JobId, Grant, TaskSet]]:
        """Without what has left."""
        for waiting in self._uncopied.values():
            for segment in waiting.segments:
                yield waiting.job, waiting.grant, segment.tasks
        for job, grant, segment in self._ready:
            yield job, grant, segment.tasks

    def blobs(self) -> Iterator[BlobRef]:
        """Large results of these."""
        segments = [segment for _, _, segment in self._ready]
        for waiting in self._uncopied.values():
            segments += waiting.segments
        for command in self._in_flight.values():
            segments += command.segments
        return (blob.ref for segment in segments for blob in segment.blobs)

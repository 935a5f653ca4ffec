"""A host (worker or spawner) as the pool sees it: its socket, its notes, and its batch."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Final

from p2psched.model import chunks, items
from p2psched.model.blob import BlobRef
from p2psched.model.execution import Batch, Progress
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, FunctionWork, ProgramWork, Segment, SentFile
from p2psched.model.taskset import TaskSet
from p2psched.run.adoption import result_blobs
from p2psched.run.arguments import Part
from p2psched.run.channel import Channel
from p2psched.run.host import frames
from p2psched.run.host.shared import BYTES, Shared, State

# Functions that a worker keeps open. The least recently used one is dropped.
JOBS_OPEN_MAX: Final = 16
# A function batch that has been silent for this long is looked at.
LOOK_S: Final = 0.02
_NS: Final = 1_000_000_000
BUSY_US_MAX: Final = 2**53  # what a segment may say; a worker shares its process with user code
_SEALS: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class Running:
    """A batch that a host has, and what of it is not reported yet."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.left = batch.tasks
        self.part = batch.tasks  # what the host has been given last
        self.rest: AsyncIterator[Part] | None = None  # what it is given when that is done
        self.is_fed = False  # the next part is on its way
        self.stopping = False
        self.expired: int | None = None  # a task that was ended because its time was over
        self.watched = False  # the starter drains its output
        self.timer: asyncio.TimerHandle | None = None

    @property
    def is_hungry(self) -> bool:
        """The host has done what it was given, and there is more."""
        idle = self.rest is not None and not self.is_fed and not self.stopping
        return idle and not self.left & self.part

    def accept(self, pieces: list[frames.Piece]) -> tuple[list[Segment], list[Segment]]:
        """What is new in `pieces`; the same result may come by socket and by notes. First what is
        whole, then what has blobs in the spill folder.

        Raises ValueError for what are no results.
        """
        left = self.left  # changed only if all of it is good: what is lost here would be missed
        whole: list[Segment] = []
        large: list[Segment] = []
        for start, stop, number, busy_us, data in pieces:
            if number >= len(frames.CAUSES) or not 0 <= start < stop:
                raise ValueError("not a piece of results")
            if chunks.check(data) != stop - start:
                raise ValueError("a piece needs one item a task")
            busy_us = min(busy_us, BUSY_US_MAX)
            cause = Cause(frames.CAUSES[number])
            fresh = left & TaskSet.of(start, stop)
            for low, high in fresh.ranges:
                part = chunks.cut(data, low - start, high - start)
                share_us = busy_us * (high - low) // (stop - start)
                if number == frames.OK_WITH_BLOBS:
                    blobs = result_blobs(low, part)
                    large.append(Segment(low, high, cause, part, share_us, blobs))
                else:
                    whole.append(Segment(low, high, cause, part, share_us))
            left -= fresh
        self.left = left
        return whole, large

    def time_left_s(self, state: State) -> float | None:
        """When to look again: None for a task that has all the time, 0.0 if its time is over."""
        timeout_ms = self.batch.spec.timeout_ms
        if timeout_ms is None:
            return None
        if not state.running:
            return LOOK_S
        return max(0.0, timeout_ms / 1000 - (time.monotonic_ns() - state.started_ns) / _NS)

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class HostHandle:
    """Made before the process: what is sent to it waits in the socket until it is there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        number: int,
        functions: bool,
        cpus: int,
        blobs: str,
        fork: Callable[[bytes, tuple[int, int]], bool],
        on_frame: Callable[[HostHandle, int, bytes], None],
        on_closed: Callable[[HostHandle], None],
    ) -> None:
        """`blobs` is the folder of this peer's blobs, or empty. Raises OSError if there are no
        descriptors, or the starter can't take the order."""
        self.number = number
        self.functions = functions
        self.cpus = cpus
        self.running: Running | None = None
        self.retired = False  # it is ending and gets no more batches
        self.ended_by_us = False
        self._jobs: OrderedDict[JobId, None] = OrderedDict()
        ours, theirs = socket.socketpair()
        memory = os.memfd_create("p2psched", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, BYTES)
            # Nobody can cut it and make the peer die of a bus error.
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            order = frames.frame_json(
                frames.FORK,
                {"host": number, "functions": functions, "cpus": cpus, "blobs": blobs},
            )
            if not fork(order, (theirs.fileno(), memory)):
                raise OSError("the starter takes no orders")
            self.shared = Shared(memory)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(memory)
        self.channel = Channel(
            loop,
            ours,
            on_frame=lambda kind, body: on_frame(self, kind, body),
            on_closed=lambda: on_closed(self),
        )

    def close(self) -> None:
        if self.running is not None:
            self.running.disarm()
        self.channel.close()
        self.shared.close()

    def run(self, batch: Batch, *, part: Part, grace_s: float) -> Running:
        """Hand a batch over, or as much of it as `part` has."""
        assert self.running is None
        self.running = Running(batch)
        work = batch.spec.work
        if isinstance(work, FunctionWork):
            self._open_job(batch.job, work)
            self.feed(part)
        else:
            bodies = [file.data for file in work.files if isinstance(file.data, bytes)]
            header = _program_header(batch, work, grace_s)
            self.channel.send(frames.frame_json(frames.RUN, header, *bodies))
        return self.running

    def feed(self, part: Part) -> None:
        """The next tasks of its batch of functions."""
        assert self.running is not None
        self.running.part = part.tasks
        batch = self.running.batch
        header: dict[str, object] = {
            "batch": batch.id,
            "job": batch.job,
            "attempt": batch.attempt,
            "fence": batch.fence,
            "runs": [(start, stop, len(data)) for start, stop, _, _, data in part.pieces],
            "last": part.last,
        }
        if part.last:
            self.running.rest = None
        self.channel.send(
            frames.frame_json(frames.RUN, header, *(data for *_, data in part.pieces))
        )

    def _open_job(self, job: JobId, work: FunctionWork) -> None:
        """Send the function unless the worker has it."""
        if job in self._jobs:
            self._jobs.move_to_end(job)
            return
        if len(self._jobs) >= JOBS_OPEN_MAX:
            oldest, _ = self._jobs.popitem(last=False)
            self.channel.send(frames.frame_json(frames.DROP, {"job": oldest}))
        self._jobs[job] = None
        code, code_blob = _inline_or_blob(work.code)
        modules, modules_blob = _inline_or_blob(work.modules)
        header = {
            "job": job,
            "path": work.path,
            "python": work.python,
            "code": len(code),
            "code_blob": code_blob,
            "modules_blob": modules_blob,
        }
        self.channel.send(frames.frame_json(frames.JOB, header, code, modules))


def _inline_or_blob(data: bytes | BlobRef) -> tuple[bytes, list[object] | None]:
    """What a frame carries of it, and the name in its header if it is a blob."""
    if isinstance(data, BlobRef):
        return b"", frames.ref_words((data.digest, data.size))
    return data, None


def _program_header(batch: Batch, work: ProgramWork, grace_s: float) -> dict[str, object]:
    return {
        "batch": batch.id,
        "job": batch.job,
        "grant": batch.grant,
        "attempt": batch.attempt,
        "fence": batch.fence,
        "ranges": batch.tasks.ranges,
        "argv": work.argv,
        "env": work.env,
        "cwd": work.cwd,
        "files": [_file_words(file) for file in work.files],
        "outputs": [[name] for name in work.outputs],
        "timeout_ms": batch.spec.timeout_ms,
        "grace_ms": int(grace_s * 1000),
    }


def _file_words(file: SentFile) -> tuple[object, ...]:
    data, blob = _inline_or_blob(file.data)
    return file.name, file.mode, len(data), blob


def refusal(
    batch: int, tasks: TaskSet, message: str, cause: Cause = Cause.NOT_STARTABLE
) -> Progress:
    """Tasks that can't start: here, or, by most causes, anywhere."""
    item = items.pack({"message": message})
    segments = tuple(
        Segment(start, stop, cause, chunks.pack([item] * (stop - start)))
        for start, stop in tasks.ranges
    )
    return Progress(batch, segments)

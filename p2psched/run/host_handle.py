"""A host (worker or spawner) as the pool sees it: its socket, its notes, and its batches.

A host runs its batches in the order in which it was handed them. Which of them have begun only the
tickets tell (`run/host/orders.py`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.model import chunks, items
from p2psched.model.blob import BlobRef
from p2psched.model.execution import Batch, Progress
from p2psched.model.isolation import Isolation
from p2psched.model.job import Cause, FunctionWork, ProgramWork, Segment, SentFile
from p2psched.model.limits import KIB
from p2psched.model.taskset import TaskSet
from p2psched.run.arguments import Part
from p2psched.run.channel import Channel
from p2psched.run.handed import AHEAD_PROGRAMS_US, LOOK_S, Running
from p2psched.run.host import frames, orders
from p2psched.run.host.shared import BYTES, Shared

# Functions that a worker keeps open. The least recently used one is dropped.
FUNCTIONS_OPEN_MAX: Final = 16
# Expected work that a worker is handed at once, in short batches; more waits for whoever is free.
AHEAD_US: Final = 2_000
# One batch may stand ready behind one that runs though it is longer, if its tasks are quicker than
# a look at a silent worker: it begins without us, and comes back when another slot is free.
NEXT_US: Final = 50_000
NEXT_TASK_US: Final = int(LOOK_S * 750_000)
AHEAD_MAX: Final = 32  # batches
AHEAD_BYTES_MAX: Final = 16 * KIB  # arguments of one that is handed over ahead
_SEALS: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

# Path, code, modules and interpreter version: jobs with the same share a function of a worker.
_FunctionKey = tuple[str, bytes | BlobRef, bytes | BlobRef, str]


class HostHandle:
    """Made before the process: what is sent to it waits in the socket until it is there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        number: int,
        functions: bool,
        by_value: bool,
        cpus: int,
        blobs: str,
        isolation: Isolation | None,
        leased: bool,
        means: dict[str, object],
        fork: Callable[[bytes, tuple[int, ...]], bool],
        on_frame: Callable[[HostHandle, int, bytes], None],
        on_closed: Callable[[HostHandle], None],
    ) -> None:
        """`by_value`: its first function comes so; `blobs` is the folder of this peer's blobs, or
        empty; `isolation` that of all functions here, programs bring theirs; `leased`: it is for
        exclusive tasks, and for no others. Raises OSError if there are no descriptors, or the
        starter can't take the order."""
        self.number = number
        self.functions, self.cpus = functions, cpus
        self.isolation, self.leased = isolation, leased
        self.batches: dict[int, Running] = {}  # in the order of their tickets
        self.idle_at_s = time.monotonic()  # since when, if there are none
        self.load_us = 0  # what they may take
        self.busy_s = self._busy_from_s = 0.0  # with batches, until it was idle last
        self.settled: set[int] = set()  # that its notes ended; its word for that still comes
        self.retired = False  # it is ending and gets no more batches
        self.ended_by_us = False
        self.aimed_at: int | None = None  # the batch because of which it was ended
        self.timer: asyncio.TimerHandle | None = None
        self.look_at_s: float | None = None
        self._fires_at_s = 0.0
        self.is_slow = False  # what runs was looked at: it gets nothing ahead
        self._loop = loop
        self._functions: OrderedDict[_FunctionKey, int] = OrderedDict()
        self._next_function = 1
        self.desk = orders.Desk()
        ours, theirs = socket.socketpair()
        memory = os.memfd_create("p2psched", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, BYTES)
            # Nobody can cut it and make the peer die of a bus error.
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            said: dict[str, object] = {
                "host": number,
                "functions": functions,
                "by_value": by_value,
                "cpus": cpus,
            }
            said |= {"blobs": blobs, "isolation": _isolation_words(isolation)}
            order = frames.frame_json(frames.FORK, said | {"leased": leased, "means": means})
            if not fork(order, (theirs.fileno(), memory, self.desk.reader)):
                raise OSError("the starter takes no orders")
            self.shared = Shared(memory)
        except OSError:
            ours.close()
            self.desk.close()
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
        self.look_later(None, lambda: None)
        self.channel.close()
        self.shared.close()
        self.desk.close()

    def has_room(self, batch: Batch) -> bool:
        """True if a short batch may stand ready behind those that it has."""
        if self.retired or self.is_slow or self.leased or self.cpus != batch.spec.cpus:
            return False
        if self.functions and self.isolation != batch.spec.isolation:
            return False
        # One behind another is good: the next one starts without us.
        is_next = len(self.batches) == 1
        most_us = AHEAD_PROGRAMS_US
        if self.functions:
            is_next = is_next and is_quick(batch)
            most_us = NEXT_US if is_next else AHEAD_US
        if batch.expected_us is None or batch.expected_us > most_us:
            return False
        if self.load_us + batch.expected_us > (2 * most_us if is_next else most_us):
            return False
        for running in self.batches.values():
            if running.rest is not None:  # it takes the next frame for more arguments
                return False
        return len(self.batches) < AHEAD_MAX

    @property
    def has_long_ready(self) -> bool:
        """What stands ready behind what runs is worth being taken to a free slot."""
        ready = list(self.batches.values())[1:]
        return any(not self.functions or running.load_us > AHEAD_US for running in ready)

    def run(self, batch: Batch, *, part: Part, grace_s: float, supplied: bool) -> Running:
        """Hand a batch over, or as much of it as `part` has. `supplied`: it comes with blobs."""
        is_idle = not self.batches
        if is_idle:
            self._busy_from_s = time.monotonic()
        running = self.batches[batch.id] = Running(batch, grace_s)
        self.load_us += running.load_us
        if self.leased:
            self.shared.set_lease(batch.until_ms)
        running.supplied = supplied
        running.cut()
        self.desk.give(batch.id, running.legs)
        work = batch.spec.work
        # An idle host is woken at once. One that has work can wait until this turn is over.
        send = self.channel.send if is_idle else self.channel.send_soon
        if isinstance(work, FunctionWork):
            send(self._order(running, work, part, first=True))
        else:
            bodies = [file.data for file in work.files if isinstance(file.data, bytes)]
            header = {**_program_header(batch, work, running.grace_s), "leg": running.leg}
            send(frames.frame_json(frames.RUN, header, *bodies))
        return running

    def feed(self, running: Running, part: Part) -> None:
        """The next tasks of its batch of functions."""
        work = running.batch.spec.work
        assert isinstance(work, FunctionWork)
        self.channel.send(self._order(running, work, part, first=False))

    def release(self, running: Running) -> None:
        """It has this batch no more."""
        del self.batches[running.batch.id]
        self.load_us -= running.load_us
        if not self.batches:
            self.idle_at_s = time.monotonic()
            self.busy_s += self.idle_at_s - self._busy_from_s
            if self.leased:
                self.shared.set_lease(0)

    def look_later(self, delay_s: float | None, look: Callable[[], None]) -> None:
        """Have `look` called once this much later, or not at all; forget what was wanted before.

        What is put off needs no new timer: the old one is only asked again when it fires. Most
        batches are over long before, and a timer for each cost 5 us.
        """
        if delay_s is None:
            self.look_at_s = None
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            return
        self.look_at_s = at_s = self._loop.time() + delay_s
        if self.timer is not None and self._fires_at_s > at_s:
            self.timer.cancel()
            self.timer = None
        if self.timer is None:
            self._arm(at_s, look)

    def _arm(self, at_s: float, look: Callable[[], None]) -> None:
        self._fires_at_s = at_s  # of a timer that is due already uvloop can't tell
        self.timer = self._loop.call_at(at_s, self._on_timer, look)

    def _on_timer(self, look: Callable[[], None]) -> None:
        self.timer = None
        if self.look_at_s is None or not self.batches:
            return
        if self.look_at_s > self._loop.time():
            self._arm(self.look_at_s, look)
            return
        self.look_at_s = None
        look()

    def _order(self, running: Running, work: FunctionWork, part: Part, *, first: bool) -> bytes:
        running.part = part.tasks
        if part.last:
            running.rest = None
        batch = running.batch
        before, number = self._open(work) if first else (b"", self._functions[_key(work)])
        order = orders.Order(
            batch=batch.id,
            function=number,
            attempt=batch.attempt,
            first=first,
            last=part.last,
            job=batch.job,
            fence=batch.fence,
            pieces=[(start, stop, data) for start, stop, _, _, data in part.pieces],
            leg=running.leg,
        )
        return before + orders.pack(order)

    def _open(self, work: FunctionWork) -> tuple[bytes, int]:
        """The number of a function, and the frames that must go before it is used."""
        key = _key(work)
        known = self._functions.get(key)
        if known is not None:
            self._functions.move_to_end(key)
            return b"", known
        before = b""
        if len(self._functions) >= FUNCTIONS_OPEN_MAX:
            _, oldest = self._functions.popitem(last=False)
            before = frames.frame(frames.DROP, frames.FUNCTION_NUMBER.pack(oldest))
        number, self._next_function = self._next_function, self._next_function + 1
        self._functions[key] = number
        code, code_blob = _inline_or_blob(work.code)
        modules, modules_blob = _inline_or_blob(work.modules)
        header = {
            "function": number,
            "path": work.path,
            "python": work.python,
            "code": len(code),
            "code_blob": code_blob,
            "modules_blob": modules_blob,
        }
        return before + frames.frame_json(frames.FUNCTION, header, code, modules), number


def _key(work: FunctionWork) -> _FunctionKey:
    return work.path, work.code, work.modules, work.python


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
        "isolation": _isolation_words(batch.spec.isolation),
        "leased": bool(batch.until_ms),
        "checkpoint": batch.spec.checkpoint,
        "progress": batch.spec.pace.pattern if batch.spec.pace is not None else "",
    }


def _isolation_words(isolation: Isolation | None) -> dict[str, object] | None:
    return None if isolation is None else msgspec.structs.asdict(isolation)


def _file_words(file: SentFile) -> tuple[object, ...]:
    data, blob = _inline_or_blob(file.data)
    return file.name, file.mode, len(data), blob


def is_quick(batch: Batch) -> bool:
    """True if its tasks are expected to be, and may wait behind others for as long as it takes."""
    spec, expected_us = batch.spec, batch.expected_us
    if expected_us is None or spec.start or spec.checkpoint:
        return False
    return expected_us <= NEXT_TASK_US * len(batch.tasks)


def is_small(batch: Batch, part: Part) -> bool:
    """True if a host may be given it while it is busy."""
    work = batch.spec.work
    size = sum(len(data) for *_, data in part.pieces)
    if isinstance(work, ProgramWork):
        size += sum(len(file.data) for file in work.files if isinstance(file.data, bytes))
    return part.last and size <= AHEAD_BYTES_MAX


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

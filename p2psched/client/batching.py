"""Calls that wait to travel, put together: one function with the same options is one job.

It knows no clock and no connection; `client.pipeline` decides when a batch leaves. A batch takes up
to BATCH_TASKS_MAX calls of together BATCH_BYTES_MAX bytes, what is over goes into the next one. A
call that is larger than that travels alone, and whoever makes the job's spec decides if it may.

Invariants: a call is in one batch, and its place there, which is the index of its task, is fixed
once the batch has left; a waiter hears exactly once how its task ended, unless it gave it up.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Final, Protocol

from p2psched.client.results import TaskResult
from p2psched.model.ids import JobId
from p2psched.model.limits import KIB

if TYPE_CHECKING:
    from p2psched.client.functions import PackedFunction, PackedJob
    from p2psched.client.options import Function, Options

BATCH_TASKS_MAX: Final = 8192
BATCH_BYTES_MAX: Final = 256 * KIB


class Waiter(Protocol):
    """Who waits for one task. Called from the event loop, and must not raise."""

    def on_leaving(self, batch: Batch, index: int) -> bool:
        """The call leaves now, as this task. False if nobody wants it any more."""
        ...

    def on_result(self, result: TaskResult) -> None: ...

    def on_failed(self, error: Exception) -> None:
        """No result will come."""
        ...


class Stage(enum.Enum):
    """The life of a batch; only forward."""

    WAITING = enum.auto()  # here; calls may be added and given up
    LEFT = enum.auto()  # on its way; what it holds is fixed
    ACCEPTED = enum.auto()  # in the ledger: it can't be lost any more
    ENDED = enum.auto()  # each of its tasks has ended or was given up


class Batch:
    """Calls that travel as one job. Made by `Batcher`."""

    def __init__(self, job: JobId, packed: PackedFunction, options: Options) -> None:
        self.job = job
        self.stage = Stage.WAITING
        self.width = 0  # tasks that have left
        self.was_accepted = False
        self.on_abandoned: Callable[[Batch], None] = lambda _batch: None
        self._packed = packed
        self._options = options
        self._calls: list[bytes] = []
        self._waiters: list[Waiter | None] = []
        self._bytes = packed.inline_bytes
        self._open = 0
        self._given_up = 0

    def __len__(self) -> int:
        """Tasks that have neither ended nor been given up."""
        return self._open

    @property
    def parents(self) -> tuple[JobId, ...]:
        """Jobs that it comes after."""
        return self._options.after

    @property
    def is_abandoned(self) -> bool:
        """True if nobody waits for it any more, though not all of it has ended."""
        return self._open == 0 and self._given_up > 0

    def has_room(self, size: int) -> bool:
        return not self._calls or (
            len(self._calls) < BATCH_TASKS_MAX and self._bytes + size <= BATCH_BYTES_MAX
        )

    def add(self, call: bytes, waiter: Waiter) -> None:
        assert self.stage is Stage.WAITING
        self._calls.append(call)
        self._waiters.append(waiter)
        self._bytes += len(call)
        self._open += 1

    def leave(self) -> bool:
        """Fix what travels. False if nothing is left of it."""
        assert self.stage is Stage.WAITING
        calls: list[bytes] = []
        waiters: list[Waiter | None] = []
        for call, waiter in zip(self._calls, self._waiters, strict=True):
            assert waiter is not None
            if waiter.on_leaving(self, len(waiters)):
                calls.append(call)
                waiters.append(waiter)
        self._calls, self._waiters, self._open = calls, waiters, len(waiters)
        self.width = len(waiters)
        self.stage = Stage.LEFT if waiters else Stage.ENDED
        return bool(waiters)

    def pack(self, submitter: str) -> PackedJob:
        """The job. Raises UsageError if it is over a limit."""
        from p2psched.client.functions import pack, pack_single, packed_calls  # noqa: PLC0415 (who only looks packs nothing)
        from p2psched.client.options import SINGLE  # noqa: PLC0415

        packed, options, calls = self._packed, self._options, self._calls
        told = options.told()
        single = None
        if len(calls) == 1 and told.keys() <= SINGLE:
            single = pack_single(
                packed,
                calls[0],
                name=options.name,
                retries=options.retries,
                timeout_s=options.timeout_s,
                cpus=options.cpus,
                submitter=submitter,
            )
        return single or pack(packed, packed_calls(calls), submitter=submitter, **told)

    def accepted(self) -> None:
        assert self.stage is Stage.LEFT
        self.stage = Stage.ACCEPTED
        self.was_accepted = True
        self._calls = []  # the ledger has them

    def give_up(self, index: int) -> None:
        """Nobody waits for this task any more."""
        if self._take(index) is not None:
            self._given_up += 1
            if self._open == 0:
                self.on_abandoned(self)

    def on_result(self, result: TaskResult) -> None:
        waiter = self._take(result.index)
        if waiter is not None:
            waiter.on_result(result)

    def end(self, failure: Exception | None) -> None:
        """Tell all who still wait, and hold nothing any more. None if nobody does."""
        self.stage = Stage.ENDED
        self._calls = []
        waiters, self._waiters, self._open = self._waiters, [], 0
        if failure is None:
            assert waiters.count(None) == len(waiters), "nobody knows how these tasks ended"
            return
        for waiter in waiters:
            if waiter is not None:
                waiter.on_failed(failure)

    def _take(self, index: int) -> Waiter | None:
        """Whoever waits for a task, once."""
        if index >= len(self._waiters):
            return None
        waiter, self._waiters[index] = self._waiters[index], None
        self._open -= waiter is not None
        return waiter


class Batcher:
    """The batches that have not left, oldest first."""

    def __init__(self, new_job: Callable[[], JobId]) -> None:
        self._new_job = new_job
        self._queue: deque[tuple[object, Batch]] = deque()
        # With the function itself: while it is held, its `id` is nobody else's.
        self._open: dict[object, tuple[Batch, Function]] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, function: Function, options: Options, call: bytes, waiter: Waiter) -> Batch:
        """Put a packed call into the batch of its function, or begin one: then the function is
        packed, as it is now. Raises UsageError if it can't be."""
        key = (_identity(function), None if options.are_usual else options)
        found = self._open.get(key)
        batch = found[0] if found is not None else None
        if batch is None or not batch.has_room(len(call)):
            from p2psched.client.functions import pack_function  # noqa: PLC0415

            packed = pack_function(function)
            batch = Batch(self._new_job(), packed, options)
            self._open[key] = (batch, function)
            self._queue.append((key, batch))
        batch.add(call, waiter)
        return batch

    def take(self) -> Batch | None:
        """The oldest batch; nothing can be added to it any more."""
        if not self._queue:
            return None
        key, batch = self._queue.popleft()
        found = self._open.get(key)
        if found is not None and found[0] is batch:
            del self._open[key]
        return batch

    def batches(self) -> Sequence[Batch]:
        return [batch for _, batch in self._queue]

    def take_all(self) -> Sequence[Batch]:
        batches = self.batches()
        self._queue.clear()
        self._open.clear()
        return batches


def _identity(function: Function) -> object:
    """Equal only for what is the same function: a caller's own `__eq__` is not asked."""
    if isinstance(function, str):
        return function
    if isinstance(function, MethodType):  # made anew each time it is looked up
        return id(function.__self__), id(function.__func__)
    return id(function)

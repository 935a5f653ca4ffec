"""A batch that a host has, and what of it is not reported yet.

It is handed over in legs (`run/host/orders.py`): what has not begun of them can be taken back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from p2psched.model import chunks
from p2psched.model.execution import Batch
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import TaskSet
from p2psched.run.adoption import result_blobs
from p2psched.run.arguments import Part
from p2psched.run.host import frames, orders
from p2psched.run.host.report import FLUSH_NS
from p2psched.run.host.shared import State

# Expected work of a leg; each costs a worker a microsecond.
LEG_US: Final = 1_000
AHEAD_PROGRAMS_US: Final = 100_000  # work that a spawner has ahead; taken back for one that is free
# A worker that has been silent for this long is looked at.
LOOK_S: Final = 0.02
_NS: Final = 1_000_000_000
BUSY_US_MAX: Final = 2**53  # what a segment may say; a worker shares its process with user code


class Running:
    """A batch that a host has, and what of it is not reported yet."""

    def __init__(self, batch: Batch, grace_s: float) -> None:
        """`grace_s`: what the peer gives its tasks; the job may have one of its own."""
        self.batch = batch
        times = batch.spec.times
        own_ms = None if times is None else times.grace_ms
        self.grace_s = grace_s if own_ms is None else own_ms / 1000
        self.left = batch.tasks
        self.leg = 0  # tasks that a ticket is good for; 0: all
        self.legs = 1  # that it was handed over as
        self.part = batch.tasks  # what the host has been given last
        self.supplied = False  # it came with blobs, and its first part is gone with it
        self.rest: AsyncIterator[Part] | None = None  # what it is given when that is done
        self.is_fed = False  # the next part is on its way
        self.stopping = False
        self.expired: int | None = None  # a task that was ended because its time was over
        self.expired_as = Cause.TIMEOUT  # or why it was
        self.why = ""  # for people
        self.timer: asyncio.TimerHandle | None = None  # how long it may take to stop

    def cut(self) -> None:
        """Into legs, if nothing of it comes later. A leg is as many tasks as are worth a ticket."""
        batch, count = self.batch, len(self.batch.tasks)
        if self.supplied or batch.expected_us is None or count == 1:
            return
        self.leg = max(1, LEG_US * count // max(1, batch.expected_us), -(-count // orders.LEGS_MAX))
        self.legs = -(-count // self.leg)

    def behind(self, legs: int) -> TaskSet:
        """The tasks of so many legs at its end."""
        tasks = self.batch.tasks
        return tasks - tasks.take((self.legs - legs) * self.leg)

    @property
    def load_us(self) -> int:
        """What it may take; more than any host is handed ahead if nobody knows."""
        expected_us = self.batch.expected_us
        return AHEAD_PROGRAMS_US if expected_us is None else expected_us

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


def leaves_by_itself(state: State) -> bool:
    """True once the task that runs has run for so long that its result, and all that is kept
    beside it, will be sent when it ends. Before, a worker may keep a result that came quickly and
    then be silent for as long as the next task takes."""
    return state.running and time.monotonic_ns() - state.started_ns > FLUSH_NS


def ran_s(state: State) -> float:
    """For how long the task runs; 0 between two tasks."""
    return (time.monotonic_ns() - state.started_ns) / _NS if state.running else 0.0

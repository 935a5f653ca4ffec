"""What runs on the hosts of a pool is looked at once a second, in the notes that they share: how
far each task is, and which one has outlived its limit although its spawner should have ended it.

No message is needed for that, and nothing happens while nothing runs. Notes are not trusted: a user
code's process may have written them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from typing import Final

from p2psched.model.execution import Reports, TaskReport
from p2psched.model.job import Cause
from p2psched.run.host import frames
from p2psched.run.host.shared import State, Word
from p2psched.run.host_handle import HostHandle, Running

REPORT_S: Final = 1.0
# A spawner that has not ended a program so long after limit and grace hangs itself.
OVERDUE_S: Final = 3.0
_NS_PER_MS: Final = 1_000_000
_NUMBERS_MAX: Final = 1e15

End = Callable[[HostHandle, Running, int], None]


class Watching:
    """`running`: all batches that hosts have. `end` ends the host of a task, which is what its end
    is put down to."""

    def __init__(
        self,
        running: Callable[[], Iterator[tuple[HostHandle, Running]]],
        emit: Callable[[Reports], None],
        end: End,
    ) -> None:
        self._running = running
        self._emit = emit
        self._end = end
        self._timer: asyncio.TimerHandle | None = None
        self._told = False  # the last reports were not none

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Something runs."""
        if self._timer is None:
            self._timer = loop.call_later(REPORT_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_ns = time.monotonic_ns()
        reports: list[TaskReport] = []
        is_any = False
        for host, running in list(self._running()):
            is_any = True
            state = host.shared.read()
            if state is None or not state.running or state.batch != running.batch.id:
                continue
            if state.index not in running.left:
                continue
            if not host.functions and _is_overdue(running, state, now_ns):
                self._end(host, running, state.index)
                continue
            report = _report(running, state, host.shared.word(state.started_ns), now_ns)
            if report is not None:
                reports.append(report)
        if reports or self._told:
            self._told = bool(reports)
            self._emit(Reports(tuple(reports)))
        if is_any:
            self.begin(loop)

    def end_task(self, host: HostHandle, running: Running, index: int, cause: Cause) -> None:
        """As `Executor.end_task`, of a batch that this host has; `running.why` says why."""
        if running.stopping or running.expired is not None:
            return
        if not host.functions:
            number = frames.CAUSES.index(cause.value)
            head = frames.END_TASK.pack(running.batch.id, index, number)
            host.channel.send(frames.frame(frames.END, head, running.why.encode()))
            return
        state = host.shared.read()
        begun = state is not None and state.running
        if begun and state is not None and (state.batch, state.index) == (running.batch.id, index):
            running.expired_as = cause
            self._end(host, running, index)


def _is_overdue(running: Running, state: State, now_ns: int) -> bool:
    timeout_ms = running.batch.spec.timeout_ms
    if timeout_ms is None or running.stopping or running.expired is not None:
        return False
    limit_ns = (timeout_ms + round((running.grace_s + OVERDUE_S) * 1000)) * _NS_PER_MS
    return now_ns - state.started_ns > limit_ns


def _report(running: Running, state: State, word: Word | None, now_ns: int) -> TaskReport | None:
    spec = running.batch.spec
    if word is None and spec.timeout_ms is None and spec.pace is None:
        return None
    ran_ms = max(0, now_ns - state.started_ns) // _NS_PER_MS
    batch, index = running.batch.id, state.index
    if word is None:
        return TaskReport(batch, index, ran_ms, ran_ms)
    quiet_ms = min(ran_ms, max(0, now_ns - word.alive_ns) // _NS_PER_MS)
    done, total = _number(word.done), _number(word.total)
    if done is None:
        return TaskReport(batch, index, ran_ms, quiet_ms)
    said_ms = min(ran_ms, max(0, now_ns - word.said_ns) // _NS_PER_MS)
    return TaskReport(batch, index, ran_ms, quiet_ms, said_ms, done, total, word.note)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) and 0 <= value <= _NUMBERS_MAX else None

"""What runs on the hosts of a pool is looked at in the notes that they share. Once a second: how
far each task is, and which one has outlived its limit although its spawner should have ended it. A
worker that is silent, sooner: its task may hold up what stands behind it.

No message is needed for that, and nothing happens while nothing runs. Notes are not trusted: a user
code's process may have written them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from p2psched.model.execution import Reports, TaskReport
from p2psched.model.job import Cause
from p2psched.run.handed import LOOK_S, Running, leaves_by_itself, ran_s
from p2psched.run.host import frames
from p2psched.run.host.shared import State, Word
from p2psched.run.host_handle import HostHandle
from p2psched.run.hosts import Hosts

REPORT_S: Final = 1.0
# A spawner that has not ended a program so long after limit and grace hangs itself.
OVERDUE_S: Final = 3.0
_NS_PER_MS: Final = 1_000_000
_NUMBERS_MAX: Final = 1e15


class Looks:
    """Of one pool, and how a task is ended whose time is over."""

    def __init__(
        self,
        hosts: Hosts,
        running: Mapping[int, HostHandle],
        take_back: Callable[[HostHandle], None],
        emit: Callable[[Reports], None],
        *,
        report_notes: Callable[[HostHandle, State], bool],
        dispatch: Callable[[], None],
    ) -> None:
        """`running`: batch -> its host; `take_back`: what has not begun there. `report_notes`: what
        it has ended; False if it is ended for what it noted."""
        self._report_notes = report_notes
        self._dispatch = dispatch
        self._hosts = hosts
        self._running = running
        self._take_back = take_back
        self._emit = emit
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
        for batch, host in list(self._running.items()):
            is_any, running = True, host.batches.get(batch)
            if running is None:  # it was taken back just now
                continue
            state = host.shared.read()
            if state is None or not state.running or state.batch != running.batch.id:
                continue
            if state.index not in running.left:
                continue
            if not host.functions and _is_overdue(running, state, now_ns):
                self.expire(host, running, state.index)
                continue
            report = _report(running, state, host.shared.word(state.started_ns), now_ns)
            if report is not None:
                reports.append(report)
        if reports or self._told:
            self._told = bool(reports)
            self._emit(Reports(tuple(reports)))
        if is_any:
            self.begin(loop)

    def at(self, host: HostHandle, delay_s: float | None) -> None:
        """Look at a worker if it is silent until then."""
        host.look_later(delay_s, lambda: self._look_at(host))

    def _look_at(self, host: HostHandle) -> None:
        """A worker is silent. Report what it finished before. If its task takes longer give what
        waits behind it to others, have the starter take care of its output, and see whether its
        time is over."""
        state = host.shared.read()
        if state is not None and not self._report_notes(host, state):
            return
        delay_s: float | None = LOOK_S
        running = None if state is None else host.batches.get(state.batch)
        if state is not None and running is not None:
            delay_s = running.time_left_s(state)
            if not host.is_slow and state.running and ran_s(state) < LOOK_S and delay_s != 0.0:
                # One quick task after another, and it keeps what it has ended.
                rest_s = LOOK_S - ran_s(state)
                delay_s = rest_s if delay_s is None else min(delay_s, rest_s)
                self.at(host, delay_s)
                return
            if not host.is_slow:
                host.is_slow = True
                self._hosts.watch(host, running, state.index)
                self._take_back(host)
            if delay_s == 0.0:
                self.expire(host, running, state.index)
            elif not leaves_by_itself(state):
                delay_s = LOOK_S if delay_s is None else min(delay_s, LOOK_S)
        if host.aimed_at is None:
            self.at(host, delay_s)
        self._dispatch()

    def expire(self, host: HostHandle, running: Running, index: int) -> None:
        """End the host of a task: that is what its end is put down to."""
        running.expired = index
        self._take_back(host)
        self._hosts.kill_for(running, host, running.grace_s)

    def end_task(self, batch: int, index: int, cause: Cause, why: str) -> None:
        """As `Executor.end_task`."""
        host = self._running.get(batch)
        running = host.batches.get(batch) if host is not None else None
        if host is None or running is None or running.stopping or running.expired is not None:
            return
        running.why = why
        if not host.functions:
            number = frames.CAUSES.index(cause.value)
            head = frames.END_TASK.pack(running.batch.id, index, number)
            host.channel.send(frames.frame(frames.END, head, running.why.encode()))
            return
        state = host.shared.read()
        begun = state is not None and state.running
        if begun and state is not None and (state.batch, state.index) == (running.batch.id, index):
            running.expired_as = cause
            self.expire(host, running, index)


def _is_overdue(running: Running, state: State, now_ns: int) -> bool:
    timeout_ms = running.batch.spec.timeout_ms
    if timeout_ms is None or running.stopping or running.expired is not None:
        return False
    limit_ns = (timeout_ms + round((running.grace_s + OVERDUE_S) * 1000)) * _NS_PER_MS
    return now_ns - state.started_ns > limit_ns


def _report(running: Running, state: State, word: Word | None, now_ns: int) -> TaskReport | None:
    spec = running.batch.spec
    is_watched = spec.timeout_ms is not None or spec.pace is not None or spec.speculates
    if word is None and not is_watched:
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

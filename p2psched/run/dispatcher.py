"""What runs on the hosts of a pool: batches are queued, launched, fed, watched and settled here.

Knows nothing of the starter's life: the pool says when hosts can be had (`go`) and when one is dead
(`on_exit`). Batches without blobs take no detour: `start` sends them at once if a slot is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2psched.model import chunks, items
from p2psched.model.execution import Batch, Ended, ExecutorEvent, Progress
from p2psched.model.job import Cause, FunctionWork, blobs_of
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.ports.blobs import Blobs
from p2psched.ports.executor import OnExecutorEvent
from p2psched.run.adoption import Adopter
from p2psched.run.arguments import ArgumentReader, Part, inline_part
from p2psched.run.host import frames
from p2psched.run.host.report import FLUSH_NS
from p2psched.run.host.shared import State, pieces
from p2psched.run.host_handle import LOOK_S, HostHandle, Running, refusal
from p2psched.run.hosts import Hosts
from p2psched.run.supply import Lack, Supply

# When no host can be had, it is tried again after this.
RESTART_S: Final = 0.1
# A host that has not ended a batch this long after its grace is killed.
STOP_MARGIN_S: Final = 0.7


class Dispatcher:
    def __init__(
        self, *, slots: int, blobs: str, grace_s: float, on_event: OnExecutorEvent
    ) -> None:
        """`blobs` is the folder of this peer's blobs, or empty."""
        self._slots = slots
        self.hosts = Hosts(slots=slots, blobs=blobs, on_frame=self._on_host_frame)
        self._grace_s = grace_s
        self._on_event = on_event
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: deque[Batch] = deque()
        self._running: dict[int, HostHandle] = {}  # batch -> its host
        self._supply: Supply | None = None
        self._adopter: Adopter | None = None
        self._up = False  # hosts can be had
        self._ending = False
        self._hosts_lost = 0
        self._tasks_ended = 0

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop that all of this happens in; once, before anything starts."""
        self._loop = loop

    async def keep(self, blobs: Blobs, spill: Path) -> None:
        """Moves large data beside what runs, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            self._supply = Supply(ArgumentReader(blobs), group)
            self._adopter = Adopter(blobs, spill, self._emit)
            await self._adopter.run()

    def go(self) -> None:
        """Hosts can be had: start what waits."""
        self._up = True
        self._dispatch()

    def hold(self) -> None:
        """No hosts for now."""
        self._up = False

    def end(self) -> None:
        """For ever: nothing is told any more."""
        self._ending = True

    def statistics(self) -> dict[str, int]:
        return {
            "slots": self._slots,
            "batches_running": len(self._running),
            "batches_queued": len(self._queue) + (len(self._supply) if self._supply else 0),
            "tasks_ended": self._tasks_ended,
            "hosts_lost": self._hosts_lost,
        }

    def running(self) -> Iterator[tuple[HostHandle, Running]]:
        for host in self._running.values():
            assert host.running is not None
            yield host, host.running

    def start(self, batch: Batch) -> None:
        assert batch.id not in self._running, "a batch is started once"
        if self._ending:
            return
        if blobs_of(batch.spec.work):
            if self._supply is None:
                lack = Lack("this peer has no store for large data yet")
                self._refuse(batch.id, batch.tasks, lack)
                return
            if not self._supply.is_at_hand(batch):
                self._supply.get_ready(batch, self._on_ready)
                return
        self._queue.append(batch)
        self._dispatch()

    def stop(self, batch: int, cause: Cause) -> None:
        assert cause in {Cause.CANCELLED, Cause.PEER_LOST, Cause.TIMEOUT}, cause
        for queued in self._queue:
            if queued.id == batch:
                self._queue.remove(queued)
                if self._supply is not None:
                    self._supply.cancel(batch)
                self._emit(Ended(batch, queued.tasks))
                return
        if batch not in self._running and self._supply is not None:
            waiting = self._supply.cancel(batch)
            if waiting is not None:
                self._emit(Ended(batch, waiting.tasks))
        host = self._running.get(batch)
        if host is None or host.running is None or host.running.stopping:
            return
        host.running.stopping = True
        host.running.disarm()
        if host.functions:
            self.hosts.kill(host, self._grace_s)
        else:
            host.channel.send(frames.frame(frames.STOP, frames.BATCH.pack(batch)))
            assert self._loop is not None
            host.running.timer = self._loop.call_later(
                self._grace_s + STOP_MARGIN_S, self.hosts.kill, host, 0.0
            )

    # --- batches

    def _dispatch(self) -> None:
        """Start what can start, in order: a batch that needs many slots is not overtaken."""
        while self._up and not self._ending and self._queue:
            used = sum(
                host.running.batch.spec.cpus for host in self._running.values() if host.running
            )
            if used and used + self._queue[0].spec.cpus > self._slots:
                return
            if not self._launch(self._queue.popleft()):
                return

    def _launch(self, batch: Batch) -> bool:
        work = batch.spec.work
        ready = self._supply.take(batch.id) if self._supply is not None else None
        if ready is not None:
            part, rest = ready
        elif isinstance(work, FunctionWork):
            try:
                part = inline_part(work, batch.tasks)
            except ValueError as error:
                lack = Lack(f"the job's arguments can't be read: {error}")
                self._refuse(batch.id, batch.tasks, lack)
                return True
        else:
            part = Part([], batch.tasks, last=True)
        assert self._loop is not None
        try:
            host = self.hosts.find(self._loop, batch)
        except OSError:
            # No descriptors, or the starter is going: what runs may go on, this waits.
            self._queue.appendleft(batch)
            if ready is not None and self._supply is not None:
                self._supply.give_back(batch.id, ready)
            self._loop.call_later(RESTART_S, self._dispatch)
            return False
        self._running[batch.id] = host
        running = host.run(batch, part=part, grace_s=self._grace_s)
        if not part.last and ready is not None:
            running.rest = rest
        if host.functions:
            self._arm(host, running, LOOK_S)
        return True

    def _on_ready(self, batch: Batch, lack: Lack | None) -> None:
        """A batch with large data has its first part here, or can't have it."""
        if lack is not None:
            self._refuse(batch.id, batch.tasks, lack)
        else:
            self._queue.append(batch)
            self._dispatch()

    def _feed(self, host: HostHandle, running: Running) -> None:
        """Give a worker the next part of its batch."""
        assert self._supply is not None
        assert running.rest is not None
        running.is_fed = True

        def on_part(part: Part | Lack) -> None:
            running.is_fed = False
            if host.running is not running or running.stopping:
                return
            if isinstance(part, Lack):
                host.running = None
                self._refuse(running.batch.id, running.left, part, running)
                return
            host.feed(part)
            self._arm(host, running, LOOK_S)

        self._supply.next(running.batch.id, running.rest, on_part)

    def _refuse(
        self, batch: int, tasks: TaskSet, lack: Lack, running: Running | None = None
    ) -> None:
        """Tasks that can't start end a batch."""
        self._emit(refusal(batch, tasks, lack.text, lack.cause))
        if running is None:
            self._emit(Ended(batch, EMPTY))
        else:
            running.left = EMPTY
            self._finish(running, EMPTY)

    # --- what hosts say

    def _on_host_frame(self, host: HostHandle, kind: int, body: bytes) -> None:
        if kind != frames.RESULTS:
            raise ValueError(f"a host sends results, not frames of kind {kind}")
        batch, over, ended, new = frames.open_results(body)
        running = host.running
        if running is None or running.batch.id != batch:
            raise ValueError(f"results of batch {batch}, which this host does not have")
        self._report(running, new)
        if over:
            host.running = None
            self._finish(running, TaskSet.of(ended, ended + 1) if ended >= 0 else EMPTY)
        elif running.is_hungry:
            running.disarm()
            self._feed(host, running)
        elif host.functions and not running.stopping:
            self._arm(host, running, LOOK_S)

    def _report(self, running: Running, new: list[frames.Piece]) -> None:
        if self._adopter is None and any(piece[2] == frames.OK_WITH_BLOBS for piece in new):
            raise ValueError("a host names blobs, and this peer keeps none")
        whole, large = running.accept(new)
        self._tasks_ended += sum(len(segment.tasks) for segment in (*whole, *large))
        if whole:
            self._emit(Progress(running.batch.id, tuple(whole)))
        if large:
            assert self._adopter is not None
            self._adopter.add(Progress(running.batch.id, tuple(large)))

    def _finish(self, running: Running, ran: TaskSet) -> None:
        """The last event of a batch. `ran` began, and has no result."""
        running.disarm()
        del self._running[running.batch.id]
        if running.rest is not None and self._supply is not None:
            self._supply.cancel(running.batch.id)
        ended = Ended(running.batch.id, running.left - ran)
        if self._adopter is not None and self._adopter.holds(ended.batch):
            self._adopter.add(ended)  # behind the results that wait there
        else:
            self._emit(ended)
        self._dispatch()

    def _arm(self, host: HostHandle, running: Running, delay_s: float) -> None:
        assert self._loop is not None
        running.disarm()
        running.watched = False
        running.timer = self._loop.call_later(delay_s, self._look, host, running)

    def _look(self, host: HostHandle, running: Running) -> None:
        """A worker is silent: its task takes longer. Report what it finished before, have the
        starter take care of its output, and see whether its time is over."""
        running.timer = None
        state = host.shared.read()
        delay_s: float | None = LOOK_S
        if state is not None and state.batch == running.batch.id:
            try:
                self._report(running, pieces(state.records))
            except ValueError:
                self.hosts.kill(host, 0.0)
                return
            if not running.watched:
                running.watched = True
                self.hosts.watch(host)
            delay_s = running.time_left_s(state)
            if delay_s == 0.0:
                running.expired = state.index
                self.hosts.kill(host, self._grace_s)
                return
            if not _leaves_by_itself(state):
                delay_s = LOOK_S if delay_s is None else min(delay_s, LOOK_S)
        if delay_s is not None:
            assert self._loop is not None
            running.timer = self._loop.call_later(delay_s, self._look, host, running)

    def on_exit(self, host: HostHandle, code: int, item: bytes) -> None:
        """A host is dead. Its batch is settled from what it sent and what it noted."""
        self._hosts_lost += not host.ended_by_us
        host.channel.drain()
        running, host.running = host.running, None
        state = host.shared.read()
        self.hosts.forget(host)
        if running is None:
            self._dispatch()
            return
        ran = EMPTY
        if state is not None and state.batch == running.batch.id:
            with contextlib.suppress(ValueError):  # its notes are damaged: they tell nothing
                self._report(running, pieces(state.records))
            if state.running:
                ran = running.left & TaskSet.of(state.index, state.index + 1)
                ran -= self._blame(running, ran, state.started_ns, code, item)
        self._finish(running, ran)

    def _blame(
        self, running: Running, ran: TaskSet, started_ns: int, code: int, item: bytes
    ) -> TaskSet:
        """Report how the task that ran ended. Returns what may run again although it began: a
        task that was hit because the one before it ended in the instant its time was over."""
        if running.stopping or not ran:
            return EMPTY
        cause = frames.EXIT if code >= 0 else frames.SIGNAL
        if running.expired is not None:
            if running.expired != ran.first:
                return ran
            cause = frames.TIMEOUT
            header, value, stdout, stderr = items.unpack(item)
            header["message"] = f"ended after its limit of {running.batch.spec.timeout_ms} ms"
            item = items.pack(header, value, stdout, stderr)
        busy_us = max(0, time.monotonic_ns() - started_ns) // 1000
        self._report(running, [(ran.first, ran.first + 1, cause, busy_us, chunks.pack([item]))])
        return EMPTY

    def _emit(self, event: ExecutorEvent) -> None:
        if not self._ending:
            self._on_event(event)


def _leaves_by_itself(state: State) -> bool:
    """True once the task that runs has run for so long that its result, and all that is kept
    beside it, will be sent when it ends. Before, a worker may keep a result that came quickly and
    then be silent for as long as the next task takes."""
    return state.running and time.monotonic_ns() - state.started_ns > FLUSH_NS

"""The pool: the port `Executor` on real processes, for the loop of a real peer.

The peer never forks. It executes one starter, which forks hosts: workers that call functions and
spawners that run programs, at most one of each a slot, as they are needed. Each host speaks to the
peer over a socket of its own and keeps notes in memory that both map, so a crash costs neither a
finished result nor the name of the task that ran.

It trusts its owner to hand over no more batches than there are slots, and one more a slot to keep
them busy; what can't start yet waits in order. After a crash of the starter it is started again;
what ran then ended by SIGNAL, the rest is unstarted. Nothing here blocks the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final

from p2psched.model import chunks, items
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.execution import Batch, Ended, ExecutorEvent
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, FunctionWork
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.ports.executor import OnExecutorEvent
from p2psched.run import leftovers
from p2psched.run.host import folders, frames
from p2psched.run.host.shared import pieces
from p2psched.run.host_handle import LOOK_S, HostHandle, Running, function_arguments, refusal
from p2psched.run.hosts import Hosts
from p2psched.run.live_output import read_piece
from p2psched.run.starter_link import StarterLink

HELLO_TIMEOUT_S: Final = 20.0
RESTART_S: Final = 0.1
RESTART_S_MAX: Final = 5.0
# A host that has not ended a batch this long after its grace is killed.
STOP_MARGIN_S: Final = 0.7
QUIT_MARGIN_S: Final = 0.6


class WorkerPool:
    """Runs batches; see the port `Executor` for `start` and `stop`."""

    def __init__(
        self,
        *,
        slots: int,
        folder: Path,
        on_event: OnExecutorEvent,
        peer_name: str,
        python: str = sys.executable,
        grace_s: float = 0.5,
    ) -> None:
        """`folder` is the pool's alone: it is emptied at each start."""
        self._slots = slots
        self._folder = folder.absolute()
        self._on_event = on_event
        self._peer_name = peer_name
        self._python = python
        self._grace_s = grace_s
        self._queue: deque[Batch] = deque()
        self._running: dict[int, HostHandle] = {}  # batch -> its host
        self._hosts = Hosts(slots=slots, on_frame=self._on_host_frame)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: StarterLink | None = None
        self._up = False  # the starter has said hello and lives
        self._ending = False
        self._hello = asyncio.Event()  # or it ended without
        self._closed = asyncio.Event()
        self._ready = asyncio.Event()  # or it never will be
        self._failure: P2PSchedError | None = None
        self._python_version = ""
        self._starts = 0
        self._hosts_lost = 0
        self._tasks_ended = 0

    # --- life

    async def run(self) -> None:
        """Lives until it is cancelled; then ends every process within about `grace_s` + 1 s.

        Raises UsageError if the interpreter can't run workers.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._clean)
            if not self._slots:  # nothing will ever run: no process is kept for it
                self._ready.set()
                await self._loop.create_future()
            pause_s = RESTART_S
            while True:
                if await self._serve_starter():
                    pause_s = RESTART_S
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RESTART_S_MAX)
        except P2PSchedError as error:
            self._failure = error
            raise
        finally:
            self._ending = True
            self._ready.set()
            await self._end()

    async def wait_ready(self) -> None:
        """Returns once the first starter is up. Raises what `run` raises."""
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        if self._ending:
            raise Unavailable("the pool has ended")

    @property
    def python_version(self) -> str:
        """Minor version of the workers' interpreter, "3.11"; empty before it is ready, and
        without slots."""
        return self._python_version

    def statistics(self) -> dict[str, int]:
        """For people."""
        return {
            "slots": self._slots,
            "batches_running": len(self._running),
            "batches_queued": len(self._queue),
            "workers": sum(host.functions for host in self._hosts),
            "spawners": sum(not host.functions for host in self._hosts),
            "tasks_ended": self._tasks_ended,
            "hosts_lost": self._hosts_lost,
            "starter_restarts": max(0, self._starts - 1),
        }

    # --- the port

    def start(self, batch: Batch) -> None:
        assert batch.id not in self._running, "a batch is started once"
        self._queue.append(batch)
        self._dispatch()

    def stop(self, batch: int, cause: Cause) -> None:
        assert cause in {Cause.CANCELLED, Cause.PEER_LOST, Cause.TIMEOUT}, cause
        for queued in self._queue:
            if queued.id == batch:
                self._queue.remove(queued)
                self._emit(Ended(batch, queued.tasks))
                return
        host = self._running.get(batch)
        if host is None or host.running is None or host.running.stopping:
            return
        host.running.stopping = True
        host.running.disarm()
        if host.functions:
            self._hosts.kill(host, self._grace_s)
        else:
            host.channel.send(frames.frame(frames.STOP, frames.BATCH.pack(batch)))
            assert self._loop is not None
            host.running.timer = self._loop.call_later(
                self._grace_s + STOP_MARGIN_S, self._hosts.kill, host, 0.0
            )

    # --- output of running programs

    def task_folder(self, job: JobId, index: int, grant: int) -> Path:
        """Where a program task runs while it runs."""
        return self._folder / folders.name_of(job, index, grant)

    async def tail(
        self, job: JobId, index: int, *, stderr: bool, offset: int
    ) -> tuple[int, bytes] | None:
        """Where the next piece starts, and at most TAIL_BYTES_MAX bytes from `offset` on, of a
        program task that runs here; None if it does not. Shows the first OUTPUT_FILE_BYTES_MAX
        bytes of a stream."""
        for host in self._running.values():
            running = host.running
            assert running is not None
            batch = running.batch
            if batch.job == job and index in running.left and not host.functions:
                folder = self.task_folder(job, index, batch.grant)
                name = "stderr" if stderr else "stdout"
                return await asyncio.to_thread(read_piece, folder, name, max(0, offset))
        return None

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
        arguments: list[frames.Piece] = []
        if isinstance(work, FunctionWork):
            try:
                arguments = function_arguments(work, batch.tasks)
            except ValueError as error:
                self._emit(refusal(batch, f"the job's arguments can't be read: {error}"))
                self._emit(Ended(batch.id, EMPTY))
                return True
        assert self._loop is not None
        try:
            host = self._hosts.find(self._loop, batch)
        except OSError:
            # No descriptors, or the starter is going: what runs may go on, this waits.
            self._queue.appendleft(batch)
            self._loop.call_later(RESTART_S, self._dispatch)
            return False
        self._running[batch.id] = host
        running = host.run(batch, arguments=arguments, grace_s=self._grace_s)
        if host.functions:
            self._arm(host, running, LOOK_S)
        return True

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
        elif host.functions and not running.stopping:
            self._arm(host, running, LOOK_S)

    def _report(self, running: Running, new: list[frames.Piece]) -> None:
        progress = running.accept(new)
        if progress is not None:
            self._tasks_ended += sum(len(segment.tasks) for segment in progress.segments)
            self._emit(progress)

    def _finish(self, running: Running, ran: TaskSet) -> None:
        """The last event of a batch. `ran` began, and has no result."""
        running.disarm()
        del self._running[running.batch.id]
        self._emit(Ended(running.batch.id, running.left - ran))
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
                self._hosts.kill(host, 0.0)
                return
            if not running.watched:
                running.watched = True
                self._hosts.watch(host)
            delay_s = running.time_left_s(state)
            if delay_s == 0.0:
                running.expired = state.index
                self._hosts.kill(host, self._grace_s)
                return
        if delay_s is not None:
            assert self._loop is not None
            running.timer = self._loop.call_later(delay_s, self._look, host, running)

    # --- what the starter says

    def _on_starter_frame(self, kind: int, body: bytes) -> None:
        if kind == frames.HELLO:
            self._python_version = str(frames.open_json(body)[0]["python"])
            self._up = True
            self._hello.set()
            self._ready.set()
            self._dispatch()
        elif kind == frames.EXITED:
            number, code = frames.HOST_STATUS.unpack_from(body)
            host = self._hosts.get(number)
            if host is not None:
                self._on_exit(host, code, body[frames.HOST_STATUS.size :])

    def _on_starter_closed(self) -> None:
        self._up = False
        self._hello.set()
        self._closed.set()

    def _on_exit(self, host: HostHandle, code: int, item: bytes) -> None:
        """A host is dead. Its batch is settled from what it sent and what it noted."""
        self._hosts_lost += not host.ended_by_us
        host.channel.drain()
        running, host.running = host.running, None
        state = host.shared.read()
        self._hosts.forget(host)
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

    # --- the starter

    async def _serve_starter(self) -> bool:
        """One starter, from its launch to its end. True if it was up; raises if the first isn't."""
        assert self._loop is not None
        self._hello.clear()
        self._closed.clear()
        link = self._link = StarterLink(
            self._loop,
            python=self._python,
            folder=self._folder,
            peer_name=self._peer_name,
            on_frame=self._on_starter_frame,
            on_closed=self._on_starter_closed,
        )
        self._hosts.use(link)
        self._starts += 1
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await self._hello.wait()
        except TimeoutError:
            link.process.kill()
        was_up = self._up
        await self._closed.wait()
        await asyncio.to_thread(link.wait, QUIT_MARGIN_S)
        if not self._python_version:
            raise await asyncio.to_thread(link.failure)
        # The kernel ends the hosts, but programs and daemons have no such tie.
        await asyncio.to_thread(leftovers.kill, self._folder)
        item = items.pack({"signal": int(signal.SIGKILL), "message": "its starter was killed"})
        for host in self._hosts:
            self._on_exit(host, -signal.SIGKILL, item)
        return was_up

    async def _end(self) -> None:
        if self._link is not None:
            self._link.quit(self._grace_s)
        await asyncio.to_thread(self._end_processes)
        if self._link is not None:
            self._link.channel.close()
        for host in self._hosts:
            self._hosts.forget(host)
        self._running.clear()
        self._queue.clear()

    def _end_processes(self) -> None:
        """Blocks: a thread's work. Bounded by the grace and QUIT_MARGIN_S."""
        if self._link is not None:
            self._link.wait(self._grace_s + QUIT_MARGIN_S)
        self._clean()

    def _clean(self) -> None:
        """Leave no process and no file of an earlier life. Blocks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        leftovers.kill(self._folder)
        leftovers.clear(self._folder)

    def _emit(self, event: ExecutorEvent) -> None:
        if not self._ending:
            self._on_event(event)

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
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from p2psched.model import items
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.execution import Batch, Standing, Tending
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.ports.blobs import Blobs
from p2psched.ports.executor import OnExecutorEvent
from p2psched.run import leftovers
from p2psched.run.dispatcher import RESTART_S, Dispatcher
from p2psched.run.host import folders, frames, large
from p2psched.run.live_output import Outputs
from p2psched.run.means import Means, Setup, find
from p2psched.run.standing import has_begun
from p2psched.run.starter_link import StarterLink

HELLO_TIMEOUT_S: Final = 20.0
RESTART_S_MAX: Final = 5.0
RETIRE_S: Final = 2.5  # between two looks for idle hosts
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
        blobs_folder: Path | None = None,
        setup: Setup | None = None,
    ) -> None:
        """`folder` is the pool's alone: it is emptied at each start. `blobs_folder` is that of the
        `Blobs` that `keep` gets, on the same filesystem; without it neither arguments nor results
        may be large."""
        self._slots = slots
        self._folder = folder.absolute()
        self._peer_name = peer_name
        self._python = python
        self._grace_s = grace_s
        self._keeps_blobs = blobs_folder is not None
        self._dispatcher = Dispatcher(
            slots=slots,
            blobs="" if blobs_folder is None else str(blobs_folder.absolute()),
            grace_s=grace_s,
            on_event=on_event,
        )
        self._hosts = self._dispatcher.hosts
        self.output: Final = Outputs(self._folder, self._dispatcher.running)
        self._setup = setup or Setup()
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

    # --- life

    async def run(self) -> None:
        """Lives until it is cancelled; then ends every process within about `grace_s` + 1 s.

        Raises UsageError if the interpreter can't run workers.
        """
        self._loop = asyncio.get_running_loop()
        self._dispatcher.attend(self._loop)
        try:
            self._hosts.means = await asyncio.to_thread(find, self._setup, self._folder, os.environ)
            await asyncio.to_thread(self._clean)
            if not self._slots:  # nothing will ever run: no process is kept for it
                self._ready.set()
                await self._loop.create_future()
            retiring = self._loop.create_task(self._retire())
            try:
                await self._serve()
            finally:
                retiring.cancel()
        finally:
            self._ending = True
            self._dispatcher.end()
            self._ready.set()
            await self._end()
        assert self._failure is not None, "a pool serves until it is cancelled"
        raise self._failure

    async def keep(self, blobs: Blobs) -> None:
        """Moves large data beside `run`, until it is cancelled; from before the first batch on that
        needs it."""
        await self._dispatcher.keep(blobs, self._folder / large.SPILL)

    async def _serve(self) -> None:
        """One starter after another. Returns only if the first can't start."""
        pause_s = RESTART_S
        try:
            while True:
                if await self._serve_starter():
                    pause_s = RESTART_S
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RESTART_S_MAX)
        except P2PSchedError as error:
            self._failure = error

    async def _retire(self) -> None:
        """Give back the memory of hosts that have nothing to do."""
        while True:
            await asyncio.sleep(RETIRE_S)
            self._hosts.end_idle(time.monotonic())

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

    @property
    def means(self) -> Means:
        """What there is to bound tasks with, once it is ready."""
        return self._hosts.means

    def statistics(self) -> dict[str, int]:
        """For people."""
        return {
            **self._dispatcher.statistics(),
            "workers": sum(host.functions for host in self._hosts),
            "spawners": sum(not host.functions for host in self._hosts),
            "starter_restarts": max(0, self._starts - 1),
        }

    # --- the port

    def start(self, batch: Batch) -> None:
        self._dispatcher.start(batch)

    def stop(self, batch: int, cause: Cause) -> None:
        self._dispatcher.stop(batch, cause)

    def end_task(self, batch: int, index: int, cause: Cause, why: str) -> None:
        self._dispatcher.looks.end_task(batch, index, cause, why)

    def renew(self, batch: int, until_ms: int) -> None:
        self._dispatcher.renew(batch, until_ms)

    def take_back(self) -> None:
        self._dispatcher.take_back()

    def standing(self) -> Standing:
        return self._dispatcher.standing()

    def tend(self, how: Tending, batches: frozenset[int]) -> None:
        match how:
            case Tending.AGAIN:
                self._dispatcher.dispatch()
            case Tending.HOSTS:
                self._dispatcher.renew_hosts(batches)
            case Tending.ALL:
                begun = any(has_begun(*found) for found in self._dispatcher.running())
                if not begun and self._link is not None:
                    self._link.process.kill()  # another one is started when it is gone

    def task_folder(self, job: JobId, index: int, grant: int) -> Path:
        """Where a program task runs while it runs."""
        return self._folder / folders.name_of(job, index, grant)

    # --- what the starter says

    def _on_starter_frame(self, kind: int, body: bytes) -> None:
        if kind == frames.HELLO:
            self._python_version = str(frames.open_json(body)[0]["python"])
            self._up = True
            self._hello.set()
            self._ready.set()
            self._dispatcher.go()
        elif kind == frames.EXITED:
            number, code = frames.HOST_STATUS.unpack_from(body)
            host = self._hosts.get(number)
            if host is not None:
                self._dispatcher.on_exit(host, code, body[frames.HOST_STATUS.size :])
                if not self._ending:
                    self.output.sweep()

    def _on_starter_closed(self) -> None:
        self._up = False
        self._dispatcher.hold()
        self._hello.set()
        self._closed.set()

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
            pass_env=self._setup.pass_env,
        )
        self.means.groups.admit(link.process.pid)
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
        await asyncio.to_thread(self.means.groups.empty)
        item = items.pack({"signal": int(signal.SIGKILL), "message": "its starter was killed"})
        for host in self._hosts:
            self._dispatcher.on_exit(host, -signal.SIGKILL, item)
        return was_up

    async def _end(self) -> None:
        if self._link is not None:
            self._link.quit(self._grace_s)
        await asyncio.to_thread(self._end_processes)
        if self._link is not None:
            self._link.channel.close()
        for host in self._hosts:
            self._hosts.forget(host)

    def _end_processes(self) -> None:
        """Blocks: a thread's work. Bounded by the grace and QUIT_MARGIN_S."""
        if self._link is not None:
            self._link.wait(self._grace_s + QUIT_MARGIN_S)
        self._clean()
        self.means.groups.end()

    def _clean(self) -> None:
        """Leave no process and no file of an earlier life. Blocks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        leftovers.kill(self._folder)
        self.output.open()
        leftovers.clear(self._folder)
        if self._keeps_blobs and not self._ending:
            (self._folder / large.SPILL).mkdir()

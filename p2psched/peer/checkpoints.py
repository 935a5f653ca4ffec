"""The checkpoints of the tasks that run here: an executor around the real one.

Before an attempt of a task that saves them its newest whole checkpoint is brought here, from
whoever has it. While it runs, what it saves as files is taken whenever it renames something into
place, and the newest one is copied to one more peer: in the background, within a budget, and those
that a newer one overtakes are left out. A task that is given back is told of only once its last
checkpoint is on another peer, or MOVE_S are over. What the ledger doesn't need any more is removed.

Batches of other tasks pass at the cost of a look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import msgspec

from p2psched.core.resuming import Search, Take, Without, seeks
from p2psched.model.checkpoint_messages import CheckpointCall
from p2psched.model.checkpoints import key_of
from p2psched.model.errors import NoSpace, P2PSchedError, first_of
from p2psched.model.execution import Batch, Ended, ExecutorEvent, Progress, Standing, Tending
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.messages import AnswerBody
from p2psched.model.resumed import NoteResumed
from p2psched.model.status_messages import CheckpointStatus
from p2psched.model.taskset import EMPTY
from p2psched.observe.renames import Renames
from p2psched.peer.blobs import Threads
from p2psched.peer.checkpoint_copies import CheckpointCopies
from p2psched.peer.checkpoint_run import Run
from p2psched.peer.checkpoint_ways import CheckpointWays
from p2psched.peer.others import Others
from p2psched.ports.clock import Clock
from p2psched.ports.executor import Executor, OnExecutorEvent
from p2psched.run.host_handle import refusal
from p2psched.store.checkpoint_archive import is_whole
from p2psched.store.checkpoints import CheckpointFiles
from p2psched.store.space import is_no_space

log = logging.getLogger(__name__)

MOVE_S: Final = 10.0  # a task that goes waits so long for its last checkpoint to go first
SWEEP_S: Final = 10.0


class Checkpoints:
    """Implements `Executor`. `around` gives it the one inside, `attach` what it knows of others."""

    def __init__(
        self,
        files: CheckpointFiles,
        *,
        me: PeerId,
        others: Others,
        threads: Threads,
        group: asyncio.TaskGroup,
        clock: Clock,
        budget: int,
    ) -> None:
        """`budget`: bytes a minute for copies."""
        self._files = files
        self._me = me
        self._threads = threads
        self._group = group
        self._clock = clock
        self.ways: Final = CheckpointWays(
            files, me=me, others=others, threads=threads, group=group, clock=clock
        )
        self.copies: Final = CheckpointCopies(
            files, self.ways, me=me, threads=threads, clock=clock, budget=budget
        )
        self._inner: Executor | None = None
        self._forward: OnExecutorEvent = lambda _event: None
        self._around: Callable[[], tuple[list[PeerId], list[PeerId], list[PeerId]]]
        self._around = lambda: ([], [], [])
        self._note: Callable[[NoteResumed], object] = lambda _note: None
        self._runs: dict[int, Run] = {}
        self._parting: set[int] = set()  # batches that have ended, and nobody was told
        self._locks: dict[tuple[JobId, int], asyncio.Lock] = {}
        self._renames: Renames | None = None
        self._ending = False
        self.resumed = 0
        self._kept = self._kept_bytes = 0  # at the last look

    def around(self, inner: Executor) -> Checkpoints:
        """What that one says comes to `on_executed`."""
        self._inner = inner
        return self

    def attach(
        self,
        forward: OnExecutorEvent,
        around: Callable[[], tuple[list[PeerId], list[PeerId], list[PeerId]]],
        is_over: Callable[[JobId, int], Awaitable[bool]],
        note: Callable[[NoteResumed], object],
    ) -> None:
        """`forward` hears how batches go. `around`: who is alive, who is away, and who may be given
        copies. `is_over`: whether the ledger needs nothing of a task any more; raises Unavailable
        if that can't be said. `note`: for the ledger."""
        self._forward, self._around, self._note = forward, around, note
        self.copies.takers = lambda: around()[2]
        self._group.create_task(self._sweep(is_over))

    async def answer(self, body: CheckpointCall) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        return await self.ways.answer(body)

    # --- the port ---

    def start(self, batch: Batch) -> None:
        assert self._inner is not None
        if not batch.spec.checkpoint:
            self._inner.start(batch)
            return
        if self._ending:
            return
        assert len(batch.tasks) == 1, "a task that saves checkpoints has a batch of its own"
        run = self._runs[batch.id] = Run(batch)
        run.preparing = self._group.create_task(self._begin(run))

    def stop(self, batch: int, cause: Cause) -> None:
        assert self._inner is not None
        run = self._runs.get(batch)
        if run is not None and run.preparing is not None:
            run.preparing.cancel()
            del self._runs[batch]
            loop = asyncio.get_running_loop()
            loop.call_soon(self._forward, Ended(batch, run.batch.tasks))
            return
        if run is not None:
            run.leaves = cause is Cause.PEER_LOST
        self._inner.stop(batch, cause)

    def end_task(self, batch: int, index: int, cause: Cause, why: str) -> None:
        assert self._inner is not None
        self._inner.end_task(batch, index, cause, why)

    def renew(self, batch: int, until_ms: int) -> None:
        assert self._inner is not None
        run = self._runs.get(batch)
        if run is not None and run.preparing is not None:
            run.batch = msgspec.structs.replace(run.batch, until_ms=until_ms)
        else:
            self._inner.renew(batch, until_ms)

    def take_back(self) -> None:
        assert self._inner is not None
        self._inner.take_back()

    def standing(self) -> Standing:
        assert self._inner is not None
        inner = self._inner.standing()
        seeking = [seeks(number) for number, run in self._runs.items() if run.preparing is not None]
        batches = inner.batches | self._runs.keys() | self._parting
        return Standing(batches, (*inner.unbegun, *seeking))

    def tend(self, how: Tending, batches: frozenset[int]) -> None:
        assert self._inner is not None
        self._inner.tend(how, batches)

    def on_executed(self, event: ExecutorEvent) -> None:
        """What the executor inside says."""
        run = self._runs.get(event.batch) if isinstance(event, Progress | Ended) else None
        if run is None:
            self._forward(event)
        elif isinstance(event, Progress):
            run.done = any(segment.cause is Cause.OK for segment in event.segments)
            self._forward(event)
        elif isinstance(event, Ended):
            self._on_ended(run, event)

    def _on_ended(self, run: Run, event: Ended) -> None:
        del self._runs[event.batch]
        if self._renames is not None:
            self._renames.read()  # what happened before the end counts
        run.over = True
        run.ended.set()
        self._unwatch(run)
        if run.done and run.tending is not None:
            run.tending.cancel()
        run.renamed.set()
        if self._ending:  # it goes with its peer, and nobody starts it here again
            return
        if run.leaves and run.tending is not None and not run.done:
            self._group.create_task(self._part(run, event))
        else:
            self._forward(event)

    async def _part(self, run: Run, event: Ended) -> None:
        assert run.tending is not None
        self._parting.add(event.batch)
        await asyncio.wait([run.tending], timeout=MOVE_S)
        self._parting.discard(event.batch)
        self._forward(event)

    async def leave(self, timeout_s: float) -> None:
        """This peer stops: end what saves checkpoints, and bring these elsewhere. Nobody hears of
        these ends any more: the ledger takes all tasks back."""
        self._ending = True
        runs = [run for run in self._runs.values() if run.tending is not None]
        for run in list(self._runs.values()):
            self.stop(run.batch.id, Cause.PEER_LOST)
        if tending := [run.tending for run in runs if run.tending is not None]:
            await asyncio.wait(tending, timeout=timeout_s)

    def status(self) -> CheckpointStatus:
        runs = [run for run in self._runs.values() if run.tending is not None]
        return CheckpointStatus(
            tasks=self._kept,
            disk_bytes=self._kept_bytes,
            running=len(runs),
            behind=sum(run.newest not in (None, run.copied) for run in runs),
            copied=self.copies.copied,
            skipped=self.copies.skipped,
            resumed=self.resumed,
            damaged=self._files.damaged,
        )

    def close(self) -> None:
        if self._renames is not None:
            self._renames.close()

    # --- before an attempt ---

    async def _begin(self, run: Run) -> None:
        batch, task = run.batch, run.task
        assert self._inner is not None
        try:
            for other in list(self._runs.values()):  # under an older grant, and about to end
                if other is not run and (other.batch.job, other.task) == (batch.job, task):
                    await other.ended.wait()
            async with self._lock(batch.job, task):
                found = await self._find(batch, task)
                head = found.head if isinstance(found, Take) else None
                await self._threads.slow(self._files.prepare, batch.job, task, batch.grant, head)
                self._watch(run)
        except (P2PSchedError, OSError, ValueError) as error:
            self._refuse(run, error)
            return
        finally:
            run.preparing = None
        if isinstance(found, Take) and found.peer != self._me:
            run.copied, run.holder = found.head.key, found.peer
        run.tending = self._group.create_task(self._tend(run))
        run.saved.set()  # what was found here alone is copied
        self._inner.start(run.batch)

    async def _find(self, batch: Batch, task: int) -> Take | Without:
        live, away, _ = self._around()
        own = await self._threads.quick(self._files.saved, batch.job, task)
        search = Search(
            self._me,
            own,
            live=live,
            away=away,
            has_run=batch.attempt > 1,
            now_ms=self._clock.now_ms(),
        )
        found = await self.ways.find(search, batch.job, task)
        what = {"job": batch.job, "task": task, "attempt": batch.attempt}
        job, grant, attempt = batch.job, batch.grant, batch.attempt
        if isinstance(found, Take):
            self.resumed += 1
            head = found.head
            log.info("resumed", extra={**what, "number": head.number, "of": found.peer})
            said = head.number, head.wall_ms, found.peer
            self._note(NoteResumed(job, grant, task, attempt, *said))
        elif attempt > 1:
            silent, damaged = found.unheard, found.damaged
            told = {**what, "silent": silent, "damaged": damaged}
            log.warning("starts-without-checkpoint", extra=told)
            self._note(NoteResumed(job, grant, task, attempt, 0, 0, None))
        return found

    def _refuse(self, run: Run, error: Exception) -> None:
        """It can't start here."""
        batch = run.batch
        del self._runs[batch.id]
        is_full = isinstance(error, NoSpace) or is_no_space(error)
        cause = Cause.NO_SPACE if is_full else Cause.NOT_STARTABLE
        text = f"no folder for its checkpoints: {error}"
        self._forward(refusal(batch.id, batch.tasks, text, cause))
        self._forward(Ended(batch.id, EMPTY))

    def _lock(self, job: JobId, task: int) -> asyncio.Lock:
        """One at a time changes what is in a task's folder."""
        return self._locks.setdefault((job, task), asyncio.Lock())

    # --- while it runs ---

    def _watch(self, run: Run) -> None:
        """Raises OSError if the system tells no more of renames."""
        if self._renames is None:
            self._renames = Renames()

        def saved(name: str) -> None:
            if not name or key_of(name) is not None:
                run.saved.set()

        def renamed(name: str) -> None:
            if not name or is_whole(name):
                run.is_changed = True
                run.renamed.set()

        job, task = run.batch.job, run.task
        run.watches.append(self._renames.watch(self._files.path(job, task), saved))
        run.watches.append(self._renames.watch(self._files.work(job, task), renamed))

    def _unwatch(self, run: Run) -> None:
        while run.watches:
            if self._renames is not None:
                self._renames.unwatch(run.watches.pop())

    async def _tend(self, run: Run) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take(run))
                group.create_task(self.copies.keep(run))
        except* (
            P2PSchedError
        ) as errors:  # of this disk: the task goes on, and nobody looks after it
            what = {"job": run.batch.job, "task": run.task, "error": str(first_of(errors))}
            log.warning("checkpoints-not-kept", extra=what)

    async def _take(self, run: Run) -> None:
        """What it saves as files, whenever that has changed."""
        while True:
            await run.renamed.wait()
            run.renamed.clear()
            over, changed, run.is_changed = run.over, run.is_changed, False
            if changed:
                await self._snapshot(run)
            if over:
                run.taken = True
                run.saved.set()
                return

    async def _snapshot(self, run: Run) -> None:
        job, task, grant = run.batch.job, run.task, run.batch.grant
        try:
            async with self._lock(job, task):
                head = await self._threads.slow(
                    self._files.snapshot, job, task, grant, self._clock.wall_ms()
                )
        except P2PSchedError as error:
            log.warning(
                "checkpoint-not-taken", extra={"job": job, "task": task, "error": str(error)}
            )
            return
        if head is None:
            log.info("checkpoint-changed-meanwhile", extra={"job": job, "task": task})

    # --- what nobody needs any more ---

    async def _sweep(self, is_over: Callable[[JobId, int], Awaitable[bool]]) -> None:
        while True:
            with contextlib.suppress(P2PSchedError):
                self._kept, self._kept_bytes = await self._threads.quick(self._files.total)
            await asyncio.sleep(SWEEP_S)
            with contextlib.suppress(P2PSchedError):
                for job, task in await self._threads.quick(self._files.tasks):
                    if (job, task) not in set(self._running()) and await is_over(job, task):
                        await self._threads.slow(self._files.remove, job, task)
                        self._locks.pop((job, task), None)

    def _running(self) -> Iterator[tuple[JobId, int]]:
        for run in self._runs.values():
            yield run.batch.job, run.task

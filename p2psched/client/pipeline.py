"""Carries calls to the cluster and their results back: many small ones in few commands.

What is added in one turn of the event loop leaves together, at its end. While SUBMITS_IN_FLIGHT_MAX
batches are on their way, more calls pile up here and leave together once one of these is accepted:
no timer is needed for that.

A batch that needs nothing but one call, and whose job ends soon, has no task here: the answer that
says it was accepted brings its results. All others have one child task, which sends them, again if
it must be, and follows their job.

It refuses more than OPEN_TASKS_MAX tasks that have not ended. Once it is closed, and if the cluster
is out of reach for longer than the session's patience, the waiters hear Unavailable; what was
accepted by then goes on in the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from p2psched.client.after import without_result
from p2psched.client.batching import Batch, Batcher, Stage, Waiter
from p2psched.client.downloads import results_with_values
from p2psched.client.job import POLL_MS, after
from p2psched.client.results import results_of
from p2psched.client.session import Asker, Session
from p2psched.client.spool import Upload
from p2psched.model.errors import P2PSchedError, Refused, ResultLost, Unavailable
from p2psched.model.ids import ID_BITS, JobId, new_id
from p2psched.model.job import JobState
from p2psched.model.limits import JOB_TASKS_MAX
from p2psched.model.messages import (
    AnswerBody,
    CancelJob,
    Done,
    FetchResults,
    FirstResults,
    JobAccepted,
    ResultPage,
    Submit,
)

if TYPE_CHECKING:
    from p2psched.client.functions import PackedJob
    from p2psched.client.options import Function, Options

SUBMITS_IN_FLIGHT_MAX: Final = 8
# Of these so many may wait for their first results before they count as accepted.
FOLLOWED_IN_FLIGHT_MAX: Final = 4
OPEN_TASKS_MAX: Final = JOB_TASKS_MAX  # of one client; a further submit is refused

log = logging.getLogger(__name__)

Send = Callable[[Submit, Sequence[Upload]], Awaitable[JobAccepted]]  # a job behind its blobs


class _Trip(NamedTuple):
    packed: PackedJob
    began_s: float


class Pipeline:
    """Belongs to the event loop in which it is made. Its children live in `group`."""

    def __init__(
        self, session: Asker, group: asyncio.TaskGroup, *, send: Send, submitter: str
    ) -> None:
        self.session = session
        self._send = send
        self.loop = asyncio.get_running_loop()
        self._group = group
        self._submitter = submitter
        # Asking the system for each id takes longer than all else about it.
        rng = random.Random(random.SystemRandom().getrandbits(2 * ID_BITS))
        self._batcher = Batcher(lambda: JobId(new_id(rng)))
        self._scheduled = False
        self._in_flight = 0
        self._open_tasks = 0
        self._ways: dict[Batch, _Trip | None] = {}  # what has left; None once it is accepted
        self._acceptance: dict[Batch, list[asyncio.Future[None]]] = {}
        self._cancels: dict[JobId, asyncio.Task[P2PSchedError | None]] = {}
        self._emptied: asyncio.Future[None] | None = None
        self._closed: Exception | None = None

    def add(self, function: Function, options: Options, call: bytes, waiter: Waiter) -> Batch:
        """Let a packed call travel; the waiter hears how it ended. Raises UsageError if the
        function can't be packed, Unavailable if the client is closed or too much is open."""
        if self._closed is not None:
            raise self._closed
        if self._open_tasks >= OPEN_TASKS_MAX:
            raise Unavailable(f"{OPEN_TASKS_MAX:,} tasks of this client are open: await some first")
        batch = self._batcher.add(function, options, call, waiter)
        self._open_tasks += 1
        self._schedule()
        return batch

    async def wait_accepted(self, batch: Batch) -> None:
        """Until it can't be lost any more, or has ended in another way."""
        if batch.stage in {Stage.WAITING, Stage.LEFT}:
            waiting = self.loop.create_future()
            self._acceptance.setdefault(batch, []).append(waiting)
            await waiting

    async def wait_known(self, jobs: Sequence[JobId]) -> None:
        """Until each of these that this client has submitted is in the ledger, or never will be."""
        for batch in [*self._batcher.batches(), *self._ways]:
            if batch.job in jobs:
                await self.wait_accepted(batch)

    async def wait_sent(self) -> None:
        """Until nothing waits to be accepted."""
        while self._in_flight or self._batcher:
            if self._emptied is None:
                self._emptied = self.loop.create_future()
            await asyncio.shield(self._emptied)

    async def cancel(self, batch: Batch) -> None:
        """Until the ledger has cancelled the job of an abandoned batch; nothing to do for one that
        somebody still waits for. Raises Unavailable if nobody could be told."""
        await self.wait_accepted(batch)
        if not batch.is_abandoned or not batch.was_accepted:
            return
        cancelling = self._cancels.get(batch.job)
        error = await asyncio.shield(cancelling or self._begin_cancel(batch.job))
        if error is not None:
            raise error

    def close(self, error: Exception) -> None:
        """What has not been accepted stays here. The children end with their group."""
        if self._closed is None:
            self._closed = error
            for batch in self._batcher.take_all():
                self._end(batch, error)
            for batch in list(self._ways):
                self._arrive(batch, _closed(batch))
            self._note_sent()

    # --- inside -----------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and self._in_flight < SUBMITS_IN_FLIGHT_MAX:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Let leave what may."""
        self._scheduled = False
        while self._in_flight < SUBMITS_IN_FLIGHT_MAX:
            batch = self._batcher.take()
            if batch is None:
                break
            wanted = len(batch)
            leaves = batch.leave()
            self._open_tasks -= wanted - batch.width
            if leaves:
                self._in_flight += 1
                batch.on_abandoned = self._on_abandoned
                self._leave(batch)
            else:
                self._tell_accepted(batch)
        self._note_sent()

    def _leave(self, batch: Batch) -> None:
        """Begin a batch's way; it is in `_ways` to its end, so that no waiter waits on."""
        self._ways[batch] = None
        try:
            trip = self._ways[batch] = _Trip(batch.pack(self._submitter), self.loop.time())
            if batch.parents or not self._leave_quickly(batch, trip):
                self._spawn(self._carry(batch, trip))
        except P2PSchedError as error:
            self._arrive(batch, error)
        except BaseException:
            self._arrive(batch, _closed(batch))
            raise

    def _leave_quickly(self, batch: Batch, trip: _Trip) -> bool:
        """With one call and no task. False if this is no time for it."""
        if not all(self.session.has_sent(upload.ref) for upload in trip.packed.uploads):
            return False
        follow = self._in_flight <= FOLLOWED_IN_FLIGHT_MAX and batch not in self._acceptance
        submit = Submit(batch.job, trip.packed.spec, follow)
        return self.session.call_nowait(submit, partial(self._on_answer, batch))

    def _on_answer(self, batch: Batch, answer: AnswerBody | P2PSchedError) -> None:
        trip = self._ways.get(batch)
        if trip is None:  # this client was closed meanwhile
            return
        match answer:
            case FirstResults():
                self._on_accepted(batch)
                self._on_results(batch, answer)
            case JobAccepted():
                self._on_accepted(batch)
                self._spawn(self._carry_home(batch))
            case Unavailable() | ResultLost():  # the latter: a blob must be sent again
                self._spawn(self._carry(batch, trip))
            case P2PSchedError():
                self._arrive(batch, answer)
            case _:
                kind = type(answer).__name__
                self._arrive(batch, Refused(f"a peer of another version answered {kind}"))

    def _on_results(self, batch: Batch, first: FirstResults) -> None:
        """The first results of a job, and mostly all of them."""
        if any(segment.blobs for segment in first.segments):  # to be downloaded
            self._spawn(self._carry_home(batch))
            return
        try:
            for segment in first.segments:
                for result in results_of(batch.job, segment):
                    batch.on_result(result)
        except ValueError as error:  # a damaged result
            self._arrive(batch, error)
            return
        except BaseException:  # of a waiter that raised all the same
            self._arrive(batch, _closed(batch))
            raise
        if len(batch):  # it goes on, or has ended without their results
            self._spawn(self._carry_home(batch, first.next_position))
        else:
            self._arrive(batch, None)

    def _spawn(self, way: Coroutine[object, object, None]) -> None:
        try:
            self._group.create_task(way)
        except RuntimeError:  # the group ends after a fault of ours, and `close` comes with it
            way.close()

    async def _carry(self, batch: Batch, trip: _Trip) -> None:
        """The whole way of a batch for which one call is not enough."""
        failure: Exception | None = None
        accepted = False
        try:
            submit = Submit(batch.job, trip.packed.spec)
            if batch.parents:
                await self.wait_known(batch.parents)
            if trip.packed.uploads:
                await self._send(submit, trip.packed.uploads)
            else:
                spent_s = self.loop.time() - trip.began_s
                await self.session.call(submit, JobAccepted, spent_s=spent_s)
            accepted = True
        except P2PSchedError as error:
            failure = error
        finally:
            if not accepted:
                self._arrive(batch, failure or _closed(batch))
        if accepted and batch in self._ways:
            self._on_accepted(batch)
            await self._carry_home(batch)

    async def _carry_home(self, batch: Batch, position: int = 0) -> None:
        """The rest of an accepted batch's way: its results from `position` on."""
        failure: Exception | None = None
        try:
            await self._follow(batch, position)
        except (P2PSchedError, ValueError) as error:  # ValueError: a damaged result
            failure = error
        finally:
            self._arrive(batch, failure or (_closed(batch) if len(batch) else None))

    def _on_accepted(self, batch: Batch) -> None:
        self._ways[batch] = None  # what was packed is in the ledger
        self._landed()
        batch.accepted()
        self._tell_accepted(batch)
        if batch.is_abandoned:
            self._on_abandoned(batch)

    def _landed(self) -> None:
        """A batch is in flight no more: the next one may be."""
        self._in_flight -= 1
        if self._batcher:
            self._schedule()
        self._note_sent()

    def _arrive(self, batch: Batch, failure: Exception | None) -> None:
        """The end of a batch's way. None: each of its tasks has its result, or was given up."""
        if batch not in self._ways:  # it has ended before, with the client
            return
        del self._ways[batch]
        if batch.stage is Stage.LEFT:
            self._landed()
        self._open_tasks -= batch.width
        self._end(batch, failure)

    async def _follow(self, batch: Batch, position: int) -> None:
        """Until nobody waits for a task of it. Raises TaskFailed if the job was cancelled."""
        while len(batch):
            page = await self.session.call(FetchResults(batch.job, position, POLL_MS), ResultPage)
            position = after(page, position)
            async for result in results_with_values(self.session, batch.job, page.segments):
                batch.on_result(result)
            if page.view.state is not JobState.RUNNING and position >= page.view.segments:
                if len(batch):
                    raise without_result(page.view)
                break

    def _end(self, batch: Batch, failure: Exception | None) -> None:
        batch.end(failure)
        self._tell_accepted(batch)

    def _tell_accepted(self, batch: Batch) -> None:
        for waiting in self._acceptance.pop(batch, ()):
            if not waiting.done():
                waiting.set_result(None)

    def _note_sent(self) -> None:
        if self._emptied is not None and not self._in_flight and not self._batcher:
            emptied, self._emptied = self._emptied, None
            if not emptied.done():
                emptied.set_result(None)

    def _on_abandoned(self, batch: Batch) -> None:
        if batch.stage is Stage.ACCEPTED and self._closed is None:
            self._begin_cancel(batch.job)

    def _begin_cancel(self, job: JobId) -> asyncio.Task[P2PSchedError | None]:
        if self._closed is not None:
            raise self._closed
        cancelling = self._cancels[job] = self._group.create_task(self._cancel_job(job))
        return cancelling

    async def _cancel_job(self, job: JobId) -> P2PSchedError | None:
        """The error if nobody could be told; then the job goes on, and nobody waits for it."""
        try:
            await self.session.call(CancelJob(job), Done)
        except P2PSchedError as error:
            return error
        else:
            return None
        finally:
            del self._cancels[job]


def _closed(batch: Batch) -> Unavailable:
    return Unavailable(
        f"client closed before the task ended: job {batch.job} goes on if it was accepted, "
        "look for it with `client.job(...)`"
    )


async def keep_house(
    session: Asker, ready: asyncio.Future[Pipeline], send: Send, *, submitter: str
) -> None:
    """Until it is cancelled; then all children have ended too. It ends with an exception only for
    a fault of ours, which is logged; what waits hears of it."""
    try:
        async with asyncio.TaskGroup() as group:
            pipeline = Pipeline(session, group, send=send, submitter=submitter)
            if isinstance(session, Session):
                group.create_task(session.leader.keep())
                group.create_task(session.leases.keep())
                group.create_task(session.claims.keep())
            try:
                ready.set_result(pipeline)
                await asyncio.get_running_loop().create_future()
            finally:
                pipeline.close(Unavailable("client closed after a fault of its own: see the log"))
    except Exception:
        log.exception("client-fault")
        raise

"""What a peer answers: each call that a client or another peer may make.

Reads are linearizable: what was acknowledged anywhere before the call is seen. Only `GetStatus`,
`ListPeers`, `Contacts`, `TailOutput` and `StopPeer` are answered without a quorum. It refuses
nothing that any other peer would answer: what only the leader can do is passed on to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from p2psched.core.copies import referenced
from p2psched.core.jobs import Job
from p2psched.model.blob_messages import BlobCall
from p2psched.model.commands import (
    Cancel,
    Forget,
    Outcome,
    Pin,
    Rejected,
    Retry,
)
from p2psched.model.errors import NotFound, P2PSchedError, Unavailable, UsageError, from_wire
from p2psched.model.feed_messages import KeepBlobs, KeptBlobs
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.job import JobSpec, blobs_of
from p2psched.model.limits import JOB_RANGES_MAX, KIB
from p2psched.model.messages import (
    AnswerBody,
    CallBody,
    CancelJob,
    CompactLedger,
    ContactList,
    Contacts,
    Done,
    FetchHistory,
    FetchItem,
    FetchResults,
    FindJob,
    ForgetJob,
    GetStatus,
    History,
    ItemAnswer,
    JobList,
    JobView,
    Join,
    ListJobs,
    ListPeers,
    OutputPiece,
    PinJob,
    ResultPage,
    RetryJob,
    ShowJob,
    StatusAnswer,
    StopPeer,
    Submit,
    TailOutput,
)
from p2psched.net.patience import Patience
from p2psched.peer.backfill import Fetch, Source
from p2psched.peer.large_data import LargeData
from p2psched.peer.others import Others
from p2psched.peer.raft_loop import RaftLedger
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.roster import NO_QUORUM, PATIENCE_S, Roster
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.submissions import Submissions, SubmitAnswer
from p2psched.peer.views import find_job, job_view, task_state
from p2psched.ports.results import Page

WAIT_MS_MAX: Final = 30_000  # longest wait for results in one call
PAGE_BYTES_MAX: Final = 512 * KIB
COMPACT_S: Final = 300.0  # for a state of any size, on a slow disk
HISTORY_MAX: Final = 1000
JOBS_MAX: Final = 1000
_INTEGER_MAX: Final = 2**63 - 1  # of the store; the wire takes more

Tail = Callable[[JobId, int, bool, int], Awaitable[tuple[int, bytes] | None]]


class Api:
    def __init__(
        self,
        *,
        me: PeerId,
        scheduling: SchedulerLoop,
        ledger: RaftLedger,
        results: ResultWriter,
        submissions: Submissions,
        others: Others,
        source: Source,
        tail: Tail,
        data: LargeData,
        status: Callable[[], StatusAnswer],
        stop: Callable[[], None],
    ) -> None:
        self._me = me
        self._scheduling = scheduling
        self._machine = scheduling.scheduler.machine
        self._ledger = ledger
        self._results = results
        self.submissions: Final = submissions
        self._others = others
        self._source = source
        self._tail = tail
        self._data = data
        self._status = status
        self._stop = stop
        self._roster = Roster(me, scheduling.scheduler, ledger, others, self._linearize)
        self._patience = Patience(PATIENCE_S)
        self._patience_whole = Patience(PATIENCE_S + WAIT_MS_MAX / 1000)

    async def answer(self, body: CallBody) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        try:
            # Take as long as their bytes do, and bound it themselves.
            if isinstance(body, BlobCall | CompactLedger):
                return await self._answer(body)
            async with self._patience_whole.limit():
                return await self._answer(body)
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc

    async def _compact(self) -> AnswerBody:
        try:
            async with asyncio.timeout(COMPACT_S):
                return await self._ledger.compact()
        except TimeoutError as exc:
            raise Unavailable(
                f"the snapshot is not made after {COMPACT_S:.0f} s, and goes on: `p2psched status` "
                "tells the entry of the newest"
            ) from exc

    async def _answer(self, body: CallBody) -> AnswerBody:
        if isinstance(body, BlobCall):
            return await self._data.answer(body)
        if isinstance(body, CompactLedger):
            return await self._compact()
        match body:
            case Submit():
                return await self._submit(body)
            case CancelJob(job=job):
                _check(await self._propose(Cancel(job)))
                return Done()
            case ForgetJob() | PinJob() | RetryJob():
                return await self._keep(body)
            case FindJob() | ShowJob() | ListJobs():
                return await self._list(body)
            case FetchResults() | FetchItem() | TailOutput() | FetchHistory():
                return await self._fetch(body)
            case _:
                return await self._of_this_peer(body)

    async def _fetch(
        self, body: FetchResults | FetchItem | TailOutput | FetchHistory
    ) -> AnswerBody:
        match body:
            case FetchResults():
                return await self._fetch_results(body)
            case FetchItem():
                return await self._fetch_item(body)
            case TailOutput():
                return await self._tail_output(body)
            case FetchHistory():
                return await self._history(body)

    async def _keep(self, body: ForgetJob | PinJob | RetryJob) -> Done:
        command: Forget | Pin | Retry
        match body:
            case ForgetJob(job=job):
                command = Forget(job)
            case PinJob(job=job, pinned=pinned):
                command = Pin(job, pinned)
            case RetryJob(job=job, tasks=tasks):
                if len(tasks.ranges) > JOB_RANGES_MAX:
                    raise UsageError(f"a retry names up to {JOB_RANGES_MAX:,} ranges of tasks")
                command = Retry(job, await self._spec(job), tasks)
        _check(await self._propose(command))
        return Done()

    async def _spec(self, job_id: JobId) -> JobSpec:
        """What a job was submitted as. Of one that has ended only the result store knows it."""
        await self._linearize()
        job = self._job(job_id)
        spec = job.full or await self._results.read(lambda results: results.spec(job_id))
        if spec is None and await self._results.gap_of(job_id) is not None:
            answer = await self._source.ask(FetchHistory(job_id, limit=1, here_only=True))
            spec = answer.spec if isinstance(answer, History) else None
        if spec is None:
            raise Unavailable(f"what job {short(job_id)} ran is not known here: ask another peer")
        return spec

    async def _of_this_peer(
        self, body: ListPeers | Join | GetStatus | Contacts | StopPeer | KeepBlobs
    ) -> AnswerBody:
        match body:
            case ListPeers():
                return await self._roster.peers()
            case Join():
                return await self._roster.join(body)
            case KeepBlobs(peer=peer, digests=digests):
                await self._linearize()
                kept = referenced(self._machine, peer)
                return KeptBlobs(tuple(digest for digest in digests if digest in kept))
            case GetStatus():
                return self._status()
            case Contacts():
                return ContactList(tuple(sorted(self._roster.contacts().items())))
            case StopPeer():
                self._stop()
                return Done()

    async def _list(self, body: FindJob | ShowJob | ListJobs) -> AnswerBody:
        await self._linearize()
        machine = self._machine
        match body:
            case FindJob(text=text):
                return self._view(find_job(machine, text), whole=True)
            case ShowJob(job=job):
                return self._view(self._job(job), whole=True)
            case ListJobs(limit=limit):
                return JobList(tuple(self._newest(limit)), len(machine.jobs))

    def _newest(self, limit: int) -> Iterator[JobView]:
        """As many as were asked for and fit one answer."""
        size = 0
        newest = islice(reversed(self._machine.jobs.values()), max(0, min(limit, JOBS_MAX)))
        for view in map(self._view, newest):
            size += len(msgspec.msgpack.encode(view))
            if size > PAGE_BYTES_MAX:
                return
            yield view

    # --- jobs -------------------------------------------------------------------------------------

    async def _propose(self, command: Cancel | Forget | Pin | Retry) -> Outcome:
        try:
            async with self._patience.limit():
                return await self._scheduling.propose(command)
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc

    async def _submit(self, body: Submit) -> AnswerBody:
        refs = blobs_of(body.spec.work)
        if refs:
            await self._data.secure(refs)
        answer: asyncio.Future[SubmitAnswer] = asyncio.get_running_loop().create_future()
        submission = self.submissions.make(body, partial(_settle, answer))
        submission.begin()
        try:
            return await answer
        finally:
            submission.cancel()

    async def _linearize(self) -> None:
        try:
            async with self._patience.limit():
                while True:
                    try:
                        await self._scheduling.wait_linearizable()
                    except Unavailable as exc:  # an election may be under way
                        await asyncio.sleep(exc.retry_after_s)
                    else:
                        return
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc

    def _job(self, job_id: JobId) -> Job:
        job = self._machine.jobs.get(job_id)
        if job is None and job_id in self._machine.forgotten:
            raise NotFound(f"job {job_id} was forgotten, and its results with it")
        if job is None:
            raise NotFound(f"no job {job_id}: `p2psched jobs` lists them")
        return job

    async def _pass_on(self, body: Fetch) -> AnswerBody:
        """To a peer that has all of the job, which this one still fetches from others."""
        if body.here_only:
            raise Unavailable(f"results of job {short(body.job)} are not whole here yet")
        return await self._source.ask(msgspec.structs.replace(body, here_only=True))

    async def _fetch_results(self, body: FetchResults) -> AnswerBody:
        if body.position < 0:
            raise UsageError("positions of results count from 0")
        known = self._machine.jobs.get(body.job)
        if known is None or known.ended:  # it may have been run again meanwhile
            await self._linearize()
        await self._wait_results(body)
        gap = await self._results.gap_of(body.job)
        if gap is not None and (body.position < gap.positions or body.here_only):
            return await self._pass_on(body)
        view = self._view(self._job(body.job))
        page = Page(body.position)
        if view.segments > body.position:
            page = await self._results.segments(body.job, body.position, PAGE_BYTES_MAX)
            if page.next_position == body.position:  # this peer is still catching up
                raise Unavailable("these results are not here yet", retry_after_s=0.2)
        return ResultPage(tuple(page.segments), view, page.next_position, tuple(page.positions))

    async def _wait_results(self, body: FetchResults) -> None:
        """Until there is something at the asked position or the job has ended, as long as the
        caller wants. Raises NotFound."""

        def has_news() -> bool:
            job = self._job(body.job)  # another object after a snapshot: look each time
            return job.segments > body.position or job.ended or body.wait_ms <= 0

        if has_news():
            return
        try:
            async with asyncio.timeout(min(body.wait_ms, WAIT_MS_MAX) / 1000):
                while not has_news():
                    await self._scheduling.wait_job_change(body.job)
        except TimeoutError:
            if not self._ledger.engine.raft.leader_is_live():
                raise Unavailable(NO_QUORUM) from None  # others may know more

    def _view(self, job: Job, *, whole: bool = False) -> JobView:
        return job_view(
            job,
            self._machine,
            keep_ms=self._scheduling.scheduler.retention.keep_ms(job),
            whole=whole,
        )

    async def _fetch_item(self, body: FetchItem) -> AnswerBody:
        await self._linearize()
        job_id, index = body.job, body.index
        state, owner = task_state(self._job(job_id), index)
        if await self._results.gap_of(job_id) is not None:
            return await self._pass_on(body)
        found = await self._results.read(lambda results: results.item(job_id, index))
        if found is None:
            return ItemAnswer(state, "", None, owner)
        segment, item = found
        return ItemAnswer(state, segment.cause, item, owner)

    async def _tail_output(self, body: TailOutput) -> OutputPiece:
        piece = await self._tail(body.job, body.index, body.stderr, body.offset)
        if piece is not None:
            return OutputPiece(True, *piece)
        job = self._machine.jobs.get(body.job)
        held = job.owner_of(body.index) if job is not None else None
        if held is None or held.peer == self._me:
            return OutputPiece(False, body.offset, b"")
        answer = await self._others.call(held.peer, body)
        assert isinstance(answer, OutputPiece)
        return answer

    async def _history(self, body: FetchHistory) -> AnswerBody:
        await self._linearize()
        if body.job:
            self._job(body.job)
        if await self._results.gap_of(body.job) is not None:
            return await self._pass_on(body)
        spec = None
        if body.here_only and body.job and not body.after:
            spec = await self._spec(body.job)
        limit = max(1, min(body.limit, HISTORY_MAX))
        events = await self._results.read(
            lambda results: results.history(body.job, min(body.after, _INTEGER_MAX), limit)
        )
        return History(tuple(events), more=len(events) >= limit, spec=spec)


def _settle(future: asyncio.Future[SubmitAnswer], answer: SubmitAnswer | P2PSchedError) -> None:
    if future.done():  # cancelled
        return
    if isinstance(answer, P2PSchedError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _check(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Rejected):
        raise from_wire(outcome.code, outcome.message, 1000)
    return outcome

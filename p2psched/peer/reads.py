"""What a peer answers of the ledger's state and its results: each read that a client may make.

Reads are linearizable: what was acknowledged anywhere before the call is seen, or they fail. Those
that wait for results may tell of fewer than there are; what they tell was committed, and whoever
asks goes on from there. A stale read is answered from what is applied here, whoever leads.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from p2psched.core.jobs import Job
from p2psched.model.errors import NoSpace, Unavailable, UsageError
from p2psched.model.ids import JobId, short
from p2psched.model.job import JobSpec
from p2psched.model.key_messages import GetKey, KeyLook, RangeKeys
from p2psched.model.lock_messages import ListLocks
from p2psched.model.messages import (
    FetchHistory,
    FetchItem,
    FetchResults,
    FindJob,
    History,
    ItemAnswer,
    JobList,
    JobView,
    ListJobs,
    ListPeers,
    ReadAnswer,
    ReadBody,
    ResultPage,
    ShowJob,
)
from p2psched.net.patience import Patience
from p2psched.peer.backfill import Fetch, Source
from p2psched.peer.keys_api import look
from p2psched.peer.locks import lock_list
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.roster import NO_QUORUM, READ_NO_QUORUM, Roster
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.views import PAGE_BYTES_MAX, find_job, job_of, job_view, newest_views, task_state
from p2psched.ports.engine import Engine
from p2psched.ports.results import Page

WAIT_MS_MAX: Final = 30_000  # longest wait for results in one call
HISTORY_MAX: Final = 1000
_INTEGER_MAX: Final = 2**63 - 1  # of the store; the wire takes more


class Reads:
    """A part of the API, see `peer.api`."""

    def __init__(
        self,
        *,
        scheduling: SchedulerLoop,
        ledger: Engine,
        results: ResultWriter,
        source: Source,
        roster: Roster,
        patience: Patience,
    ) -> None:
        self._scheduling = scheduling
        self._machine = scheduling.scheduler.machine
        self._ledger = ledger
        self._results = results
        self._source = source
        self._roster = roster
        self._patience = patience

    async def answer(self, body: ReadBody, *, fresh: bool) -> ReadAnswer:
        """Not `fresh`: without asking anybody. Raises a P2PSchedError for the caller."""
        match body:
            case FetchResults():
                return await self._fetch_results(body, fresh=fresh)
            case FetchItem():
                return await self._fetch_item(body, fresh=fresh)
            case FetchHistory():
                return await self._history(body, fresh=fresh)
            case ListPeers(here_only=True):
                return await self._roster.peers(fresh=False)
            case _:
                if fresh:
                    await self.linearize()
                return await self._list(body, fresh=fresh)

    async def spec(self, job_id: JobId) -> JobSpec:
        """What a job was submitted as. Of one that has ended only the result store knows it."""
        await self.linearize()
        job = self._job(job_id)
        spec = job.full or await self._results.read_of(job_id, lambda found: found.spec(job_id))
        if spec is None and await self._results.gap_of(job_id) is not None:
            answer = await self._source.ask(FetchHistory(job_id, limit=1, here_only=True))
            spec = answer.spec if isinstance(answer, History) else None
        if spec is None:
            raise Unavailable(f"what job {short(job_id)} ran is not known here: ask another peer")
        return spec

    async def linearize(self) -> None:
        """Until all that was acknowledged anywhere before is applied here. Raises Unavailable."""
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
            raise Unavailable(READ_NO_QUORUM) from exc

    async def _list(
        self, body: ListPeers | FindJob | ShowJob | ListJobs | KeyLook | ListLocks, *, fresh: bool
    ) -> ReadAnswer:
        machine = self._machine
        match body:
            case ListPeers():
                return await self._roster.peers(fresh=fresh)
            case ListLocks():
                return lock_list(machine, body)
            case FindJob(text=text):
                return self._view(find_job(machine, text), whole=True)
            case ShowJob(job=job):
                return self._view(self._job(job), whole=True)
            case ListJobs(limit=limit):
                return JobList(tuple(newest_views(machine, limit, self._view)), len(machine.jobs))
            case GetKey() | RangeKeys():
                return look(machine, body)

    def _job(self, job_id: JobId) -> Job:
        return job_of(self._machine, job_id)

    def _view(self, job: Job, *, whole: bool = False) -> JobView:
        return job_view(
            job,
            self._machine,
            keep_ms=self._scheduling.scheduler.retention.keep_ms(job),
            whole=whole,
        )

    async def _pass_on(self, body: Fetch, *, fresh: bool) -> ReadAnswer:
        """To a peer that has all of the job, which this one still fetches from others."""
        if body.here_only or not fresh:
            raise Unavailable(f"results of job {short(body.job)} are not whole here yet")
        answer = await self._source.ask(msgspec.structs.replace(body, here_only=True))
        assert isinstance(answer, ResultPage | ItemAnswer | History)
        return answer

    async def _fetch_results(self, body: FetchResults, *, fresh: bool) -> ReadAnswer:
        if body.position < 0:
            raise UsageError("positions of results count from 0")
        known = self._machine.jobs.get(body.job)
        # Of a running job who waits asks for what comes; else an empty page says that there is
        # nothing, and of one that has ended a page may be of before it was run again.
        if fresh and (known is None or known.ended or body.wait_ms <= 0):
            await self.linearize()
        await self._wait_results(body, fresh=fresh)
        gap = await self._results.gap_of(body.job)
        if gap is not None and (body.position < gap.positions or body.here_only):
            return await self._pass_on(body, fresh=fresh)
        view = self._view(self._job(body.job))
        page = Page(body.position)
        if view.segments > body.position:
            page = await self._results.segments(body.job, body.position, PAGE_BYTES_MAX)
            if page.next_position == body.position:  # this peer is still catching up
                raise Unavailable("these results are not here yet", retry_after_s=0.2)
        return ResultPage(tuple(page.segments), view, page.next_position, tuple(page.positions))

    async def _wait_results(self, body: FetchResults, *, fresh: bool) -> None:
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
            if fresh and not self._ledger.engine.raft.leader_is_live():
                raise Unavailable(NO_QUORUM) from None  # others may know more

    async def _fetch_item(self, body: FetchItem, *, fresh: bool) -> ReadAnswer:
        if fresh:
            await self.linearize()
        job_id, index = body.job, body.index
        state, owner = task_state(self._job(job_id), index)
        if await self._results.gap_of(job_id) is not None:
            return await self._pass_on(body, fresh=fresh)
        try:
            found = await self._results.read_of(job_id, lambda results: results.item(job_id, index))
        except NoSpace:
            return await self._pass_on(body, fresh=fresh)
        if found is None:
            return ItemAnswer(state, "", None, owner)
        segment, item = found
        return ItemAnswer(state, segment.cause, item, owner)

    async def _history(self, body: FetchHistory, *, fresh: bool) -> ReadAnswer:
        if fresh:
            await self.linearize()
        retry = self._job(body.job).spec.retry if body.job else None
        if await self._results.gap_of(body.job) is not None:
            return await self._pass_on(body, fresh=fresh)
        spec = None
        if body.here_only and body.job and not body.after:
            spec = await self.spec(body.job)
        limit = max(1, min(body.limit, HISTORY_MAX))
        after = min(body.after, _INTEGER_MAX)
        try:
            events = await self._results.read_of(
                body.job, lambda results: results.history(body.job, after, limit)
            )
        except NoSpace:
            return await self._pass_on(body, fresh=fresh)
        demotes = () if retry is None else tuple(r.cause.value for r in retry.rules if r.demote)
        return History(tuple(events), len(events) >= limit, spec, demotes)

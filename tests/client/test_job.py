"""A job followed page by page: everything once, and nothing held."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TypeVar

import msgspec
import pytest

from p2psched.client.job import Job
from p2psched.model import chunks, items
from p2psched.model.blob import BlobRef
from p2psched.model.errors import TaskFailed
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.limits import KIB, MIB
from p2psched.model.messages import CallBody, Done, FetchResults, JobView, ResultPage
from p2psched.net.calls import Heard
from tests.client.fake import FakeJob, FakeSession, opened, submit

T = TypeVar("T")

PAGES = 100
TASKS_A_PAGE = 16
VALUE_BYTES = 16 * KIB


class WideJob:
    """An `Asker` whose job has more results than anybody should hold."""

    def __init__(self, view: JobView) -> None:
        self.view = view

    def call_nowait(self, body: CallBody, heard: Heard) -> bool:
        return False

    def has_sent(self, ref: BlobRef) -> bool:
        return False

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        assert isinstance(body, FetchResults)
        start = body.position * TASKS_A_PAGE
        item = items.pack({}, b"\xc5" + VALUE_BYTES.to_bytes(2, "big") + bytes(VALUE_BYTES))
        segment = Segment(start, start + TASKS_A_PAGE, Cause.OK, chunks.pack([item] * TASKS_A_PAGE))
        page = ResultPage((segment,), self.view)
        assert isinstance(page, expect)
        return page


def test_iterating_a_wide_job_holds_a_page_at_a_time() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            await submit(pipeline, len, "")
        view = session.newest.view()
        wide = msgspec.structs.replace(
            view, state=JobState.SUCCEEDED, segments=PAGES, tasks=PAGES * TASKS_A_PAGE
        )
        job = Job(WideJob(wide), JobId("ab" * 16))
        count = 0
        tracemalloc.start()
        try:
            async for result in job:
                count += 1
                assert result.value == bytes(VALUE_BYTES)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert count == PAGES * TASKS_A_PAGE
        assert count * VALUE_BYTES > 24 * MIB
        assert peak < 4 * MIB

    asyncio.run(main())


def test_a_job_gives_results_as_they_are_committed_and_ends_with_it() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, abs, -number) for number in range(3)]
            job = tasks[0].job
            await tasks[0].accepted()
            found: FakeJob = session.newest
            found.run(2)
            results = aiter(job)
            assert (await anext(results)).index == 2
            found.run(0)
            assert (await anext(results)).value == 0
            await job.cancel()
            assert [result.index async for result in results] == []
            assert (await job.wait()).state is JobState.CANCELLED
            with pytest.raises(TaskFailed) as caught:
                await job.results()
            assert caught.value.cause == Cause.CANCELLED

    asyncio.run(main())


class OneResult:
    """An `Asker` that counts how often it is asked for the results of a job of one task."""

    def __init__(self, view: JobView) -> None:
        self.view = view
        self.asked = 0

    def call_nowait(self, body: CallBody, heard: Heard) -> bool:
        return False

    def has_sent(self, ref: BlobRef) -> bool:
        return False

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        answer: object = Done()
        if isinstance(body, FetchResults):
            self.asked += 1
            item = items.pack_value(msgspec.msgpack.encode(self.asked))
            segment = Segment(0, 1, Cause.OK, chunks.pack([item]))
            answer = ResultPage((segment,), self.view, 1, (0,))
        assert isinstance(answer, expect)
        return answer


def test_a_result_that_was_fetched_is_here_until_it_is_run_again() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            await submit(pipeline, len, "")
        view = msgspec.structs.replace(session.newest.view(), state=JobState.SUCCEEDED, segments=1)
        peers = OneResult(view)
        job = Job(peers, JobId("ab" * 16))
        assert [await job.result(), await job.result()] == [1, 1]
        assert peers.asked == 1
        await job.retry()
        assert await job.result() == 2

    asyncio.run(main())

"""A cluster in memory for tests of the client: what would travel is kept, tasks run when told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import pytest

from p2psched.client.futures import Task
from p2psched.client.options import Function, Options
from p2psched.client.pipeline import Pipeline, keep_house
from p2psched.client.spool import Upload
from p2psched.model import chunks, items
from p2psched.model.blob import BlobRef
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, FunctionWork, JobSpec, JobState, Segment
from p2psched.model.messages import (
    AnswerBody,
    CallBody,
    CancelJob,
    Done,
    FetchResults,
    FirstResults,
    JobAccepted,
    JobView,
    ResultPage,
    ShowJob,
    Submit,
)
from p2psched.net.calls import Heard
from p2psched.run.host import frames
from p2psched.run.host.exchange import Exchange
from p2psched.run.host.functions import call, load_code, load_path
from p2psched.run.host.large import BlobFolder

T = TypeVar("T")
HERE = Exchange(blobs=BlobFolder(""), spill=None, scratch="/")


class FakeJob:
    def __init__(self, job: JobId, spec: JobSpec) -> None:
        self.id = job
        self.spec = spec
        self.segments: list[Segment] = []
        self.state = JobState.RUNNING
        self.changed = asyncio.Event()

    def run(self, *indices: int) -> None:
        """These tasks end now; without any, all."""
        work = self.spec.work
        assert isinstance(work, FunctionWork)
        assert isinstance(work.code, bytes)
        function = load_code(work.code, work.python) if work.code else load_path(work.path)
        packed = [one for chunk in work.chunks for one in chunks.unpack(chunk)]
        for index in indices or range(len(packed)):
            cause, header, value = call(function, packed[index], HERE)
            item = items.pack(header, value)
            ended = Cause.OK if cause == frames.OK else Cause.EXCEPTION
            self.segments.append(Segment(index, index + 1, ended, chunks.pack([item])))
        if len(self.segments) == len(packed):
            self.state = JobState.SUCCEEDED
        self.changed.set()

    def cancel(self) -> None:
        if self.state is JobState.RUNNING:
            self.state = JobState.CANCELLED
            self.changed.set()

    def view(self) -> JobView:
        return JobView(
            job=self.id,
            name=self.spec.name,
            kind="function",
            state=self.state,
            tasks=len(self.spec.tasks),
            waiting=0,
            owned=0,
            succeeded=len(self.segments),
            failed=0,
            cancelled=0,
            segments=len(self.segments),
            attempts_lost=0,
            attempts_failed=0,
            results_refused=0,
            submitted_ms=0,
            ended_ms=None,
            submitter="",
        )


class FakeSession:
    """An `Asker`. `runs` tasks as soon as their job is accepted, unless told otherwise; while
    `gate` is closed nothing is accepted."""

    takes_quick = True

    def __init__(self, *, runs: bool = True) -> None:
        self.runs = runs
        self.runs_first: tuple[int, ...] = ()  # only these; none: all
        self.jobs: dict[JobId, FakeJob] = {}
        self.asked: list[CallBody] = []
        self.uploads: list[Upload] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None  # of every call from now on
        self.quick_answers: deque[AnswerBody | P2PSchedError] = deque()  # instead of the true ones
        self.calls: list[asyncio.Future[None]] = []

    async def send(self, submit: Submit, uploads: Sequence[Upload]) -> JobAccepted:
        self.uploads += uploads
        return await self.call(submit, JobAccepted)

    @property
    def submits(self) -> list[JobSpec]:
        return [body.spec for body in self.asked if isinstance(body, Submit)]

    @property
    def cancels(self) -> list[JobId]:
        return [body.job for body in self.asked if isinstance(body, CancelJob)]

    @property
    def newest(self) -> FakeJob:
        return list(self.jobs.values())[-1]

    def call_nowait(self, body: CallBody, heard: Heard) -> bool:
        """Takes calls while `takes_quick`, and answers with the first results what has some."""
        if not self.takes_quick or isinstance(self.failure, KeyError):
            return False
        assert isinstance(body, Submit)
        self.asked.append(body)
        self.calls.append(asyncio.ensure_future(self._quick(body, heard)))
        return True

    def has_sent(self, ref: BlobRef) -> bool:
        return any(upload.ref == ref for upload in self.uploads)

    async def _quick(self, body: Submit, heard: Heard) -> None:
        if self.failure is not None:
            assert isinstance(self.failure, P2PSchedError)
            heard(self.failure)
            return
        instead = self.quick_answers.popleft() if self.quick_answers else None
        if isinstance(instead, P2PSchedError):
            heard(instead)
            return
        answer = await self._answer(body)
        found = self.jobs[body.job]
        if instead is not None:
            answer = instead
        elif found.segments and body.follow:
            ended = found.state is not JobState.RUNNING
            answer = FirstResults(tuple(found.segments), len(found.segments), ended)
        heard(answer)

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        del spent_s
        self.asked.append(body)
        if self.failure is not None:
            raise self.failure
        answer = await self._answer(body)
        assert isinstance(answer, expect)
        return answer

    async def _answer(self, body: CallBody) -> AnswerBody:
        match body:
            case Submit(job=job, spec=spec):
                await self.gate.wait()
                found = self.jobs[job] = FakeJob(job, spec)
                if self.runs:
                    found.run(*self.runs_first)
                return JobAccepted(job, duplicate=False)
            case FetchResults(job=job, position=position):
                found = self.jobs[job]
                while len(found.segments) <= position and found.state is JobState.RUNNING:
                    found.changed.clear()
                    await found.changed.wait()
                return ResultPage(
                    tuple(found.segments[position:]), found.view(), len(found.segments)
                )
            case CancelJob(job=job):
                self.jobs[job].cancel()
                return Done()
            case ShowJob(job=job):
                return self.jobs[job].view()
            case _:
                pytest.fail(f"nobody answers {body}")


@asynccontextmanager
async def opened(session: FakeSession) -> AsyncIterator[Pipeline]:
    """A pipeline as an open client has it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Pipeline] = loop.create_future()
    house = loop.create_task(keep_house(session, ready, session.send, submitter=""))
    pipeline = await ready
    try:
        yield pipeline
    finally:
        pipeline.close(Unavailable("client closed"))
        house.cancel()
        await asyncio.wait({house})
        assert house.cancelled(), house.exception()


def submit(
    pipeline: Pipeline, function: Callable[..., T] | str, *args: object, **options: object
) -> Task[T]:
    """As `Client.submit`; keywords are options."""
    chosen = Options(**options)  # type: ignore[arg-type]  # as the test means them
    return cast("Task[T]", Task(pipeline, cast("Function", function), chosen, (args, {})))


async def turns(count: int = 20) -> None:
    """Let the loop go on until whatever is ready has happened."""
    for _ in range(count):
        await asyncio.sleep(0)

"""The asyncio client: submit work to any peer, follow it through any other.

async with Client("127.0.0.1:7420") as client:
    job = await client.map(train, grid)
    async for result in job.as_completed():
        print(result.index, result.value)
"""

from __future__ import annotations

import asyncio
import getpass
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from p2psched.client.export import Exported, export_job
from p2psched.client.functions import Arguments, function_spec, one_argument, timeout_ms
from p2psched.client.results import TaskResult, results_of
from p2psched.client.session import PATIENCE_S, Session, find_peers
from p2psched.model.errors import NotFound, TaskFailed, UsageError
from p2psched.model.ids import JobId, new_id
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, SentFile
from p2psched.model.messages import (
    CancelJob,
    Done,
    FetchHistory,
    FetchItem,
    FetchResults,
    FindJob,
    ForgetJob,
    GetStatus,
    History,
    ItemAnswer,
    JobAccepted,
    JobList,
    JobView,
    ListJobs,
    ListPeers,
    PeerList,
    PeerView,
    PinJob,
    ResultPage,
    RetryJob,
    ShowJob,
    StatusAnswer,
    Submit,
)
from p2psched.model.taskset import TaskSet
from p2psched.store.records import default_runtime_dir

POLL_MS: Final = 10_000  # longest wait for results in one call


class Job:
    """A submitted job. Any number of these may follow the same job, in any process."""

    def __init__(self, session: Session, job: JobId) -> None:
        self._session = session
        self.id = job

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    async def show(self) -> JobView:
        """Where the job stands now."""
        return await self._session.call(ShowJob(self.id), JobView)

    async def pages(self, *, position: int = 0) -> AsyncIterator[ResultPage]:
        """Results in the order in which they were committed, page by page, until the job has
        ended; an empty page now and then tells that it goes on. `position` counts segments."""
        while True:
            page = await self._session.call(FetchResults(self.id, position, POLL_MS), ResultPage)
            position = page.next_position
            yield page
            if page.view.state is not JobState.RUNNING and position >= page.view.segments:
                return

    async def as_completed(self) -> AsyncIterator[TaskResult]:
        """Each task once, as soon as its result is committed. Cancelled tasks have none."""
        async for page in self.pages():
            for segment in page.segments:
                for result in results_of(self.id, segment):
                    yield result

    async def wait(self) -> JobView:
        """Until the job has ended; the caller owns the deadline."""
        position = (await self.show()).segments
        async for _ in self.pages(position=position):
            pass
        return await self.show()

    async def results(self) -> list[object]:
        """The values of all tasks in order of index, once all have ended. Raises the exception of
        the first task (by index) that failed, TaskFailed if some were cancelled."""
        found = {result.index: result async for result in self.as_completed()}
        view = await self.show()
        values = [found[index].value for index in sorted(found)]
        if len(found) < view.tasks:
            raise TaskFailed(
                f"job {self.id} was cancelled: {view.tasks - len(found)} of its {view.tasks} tasks "
                "have no result",
                task=str(self.id),
                cause=Cause.CANCELLED,
            )
        return values

    async def result(self, index: int = 0) -> object:
        """The value of one task, once it has ended."""
        async for result in self.as_completed():
            if result.index == index:
                return result.value
        raise NotFound(f"job {self.id} ended without a result of task {index}")

    async def item(self, index: int) -> ItemAnswer:
        """Where one task stands, with its packed result if it has one."""
        return await self._session.call(FetchItem(self.id, index), ItemAnswer)

    async def history(self, *, after: int = 0, limit: int = 1000) -> History:
        """Events of the job with a command index above `after`."""
        return await self._session.call(FetchHistory(self.id, after, limit), History)

    async def export(
        self,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 (the word that everybody uses)
        overwrite: bool = False,
    ) -> Exported:
        """Write what has ended to a file: see `client.export.export_job`. Opens no pickle."""
        return await export_job(self, path, form=format, overwrite=overwrite)

    async def cancel(self) -> None:
        """Final once this returns: no later result turns a task into a success."""
        await self._session.call(CancelJob(self.id), Done)

    async def retry(self, tasks: TaskSet | None = None) -> None:
        """Run again what failed, and what has no copy of its result left; only those of `tasks` if
        they are given. Raises Refused for a job that was cancelled."""
        await self._session.call(RetryJob(self.id, tasks or TaskSet()), Done)

    async def pin(self, *, pinned: bool = True) -> None:
        """Keep it, or (not `pinned`) let it be forgotten when its time is over."""
        await self._session.call(PinJob(self.id, pinned), Done)

    async def forget(self) -> None:
        """Drop it with its results, for good. Raises Refused while it runs."""
        await self._session.call(ForgetJob(self.id), Done)


class Client:
    """A connection to a cluster through any of its peers; see the module for the shortest use.

    Without an address the peers on this machine are found by their records, and so is the secret;
    elsewhere pass `secret_file`. `P2PSCHED_PEER`, `P2PSCHED_SECRET_FILE` and `P2PSCHED_RUNTIME_DIR`
    stand in for what is not given. Every call is repeated at another peer for up to `patience_s`
    seconds when one is gone or without a leader; then Unavailable is raised.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        secret_file: str | Path | None = None,
        runtime_dir: str | Path | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._address = address
        self._secret_file = Path(secret_file) if secret_file is not None else None
        self._runtime_dir = Path(runtime_dir) if runtime_dir is not None else None
        self._patience_s = patience_s
        self._session: Session | None = None

    async def __aenter__(self) -> Client:
        addresses, secret = await asyncio.to_thread(self._find_peers)
        self._session = Session(addresses, secret=secret, patience_s=self._patience_s)
        await self._session.__aenter__()
        return self

    def _find_peers(self) -> tuple[list[str], bytes]:
        """What wasn't given comes from the variables that the command line reads too."""
        runtime_dir = self._runtime_dir or Path(os.environ.get("P2PSCHED_RUNTIME_DIR", ""))
        secret_file = self._secret_file or Path(os.environ.get("P2PSCHED_SECRET_FILE", ""))
        return find_peers(
            self._address or os.environ.get("P2PSCHED_PEER") or None,
            secret_file=secret_file if secret_file != Path() else None,
            runtime_dir=runtime_dir if runtime_dir != Path() else default_runtime_dir(os.environ),
        )

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.__aexit__()

    @property
    def session(self) -> Session:
        """For calls that have no method here."""
        if self._session is None:
            raise UsageError("use the client as `async with Client(...) as client`")
        return self._session

    # --- work -------------------------------------------------------------------------------------

    async def map(
        self,
        function: Callable[..., object] | str,
        items: Iterable[object],
        *,
        name: str | None = None,
        retries: int = 0,
        timeout_s: float | None = None,
        cpus: int = 1,
        job_id: str | None = None,
    ) -> Job:
        """One task for each item: `function(item)`. Returns once the job is accepted: from then on
        it can't be lost. `timeout_s` is for one attempt. Raises UsageError for what can't be
        serialised or is over a limit. The same `job_id` (32 hex digits) again is the same job."""
        calls: Sequence[Arguments] = one_argument(items)
        spec = function_spec(
            function,
            calls,
            name=name,
            retries=retries,
            timeout_s=timeout_s,
            cpus=cpus,
            submitter=who_am_i(),
        )
        return await self.submit_spec(spec, job_id=job_id)

    async def submit(
        self, function: Callable[..., object] | str, *args: object, **kwargs: object
    ) -> Job:
        """One task: `function(*args, **kwargs)`. For options use `map`."""
        spec = function_spec(
            function,
            [(args, kwargs)],
            name=None,
            retries=0,
            timeout_s=None,
            cpus=1,
            submitter=who_am_i(),
        )
        return await self.submit_spec(spec)

    async def submit_program(
        self,
        argv: Sequence[str],
        *,
        tasks: TaskSet | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        files: Sequence[SentFile] = (),
        name: str | None = None,
        retries: int = 0,
        timeout_s: float | None = None,
        cpus: int = 1,
        job_id: str | None = None,
    ) -> Job:
        """One child process for each of `tasks` (default: one, index 0), never through a shell."""
        try:
            spec = JobSpec(
                name=name if name is not None else Path(argv[0]).name[:128] if argv else "",
                tasks=tasks if tasks is not None else TaskSet.of(0, 1),
                work=ProgramWork(
                    argv=tuple(argv),
                    env=tuple(sorted((env or {}).items())),
                    cwd=cwd,
                    files=tuple(files),
                ),
                retries=retries,
                timeout_ms=timeout_ms(timeout_s),
                cpus=cpus,
                submitter=who_am_i(),
            )
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error
        return await self.submit_spec(spec, job_id=job_id)

    async def submit_spec(self, spec: JobSpec, *, job_id: str | None = None) -> Job:
        job = JobId(job_id if job_id is not None else new_id(random.SystemRandom()))
        await self.session.call(Submit(job, spec), JobAccepted)
        return Job(self.session, job)

    # --- looking ----------------------------------------------------------------------------------

    async def job(self, text: str) -> Job:
        """By id, prefix of an id, name, or `last`. Raises NotFound."""
        view = await self.session.call(FindJob(text), JobView)
        return Job(self.session, view.job)

    async def jobs(self, *, limit: int = 100) -> list[JobView]:
        """Newest first."""
        return list((await self.session.call(ListJobs(limit), JobList)).jobs)

    async def peers(self) -> list[PeerView]:
        return list((await self.session.call(ListPeers(), PeerList)).peers)

    async def status(self) -> StatusAnswer:
        """The view of the peer that we talk to."""
        return await self.session.call(GetStatus(), StatusAnswer)


def who_am_i() -> str:
    """user@host, for people who look at the list of jobs."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"

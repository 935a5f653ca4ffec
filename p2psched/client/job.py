"""A job as its submitter sees it, and as anybody who knows its id does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from p2psched.client import blobs
from p2psched.client.after import without_result
from p2psched.client.downloads import results_with_values
from p2psched.client.find import who_am_i
from p2psched.client.logs import TaskOfJob
from p2psched.client.resolving import results_by_hand
from p2psched.client.results import TaskResult
from p2psched.client.session import Asker, Session
from p2psched.client.story import Step, read_history
from p2psched.model.blob import BlobRef
from p2psched.model.errors import NotFound, TaskFailed, UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobState
from p2psched.model.keep_messages import ForgetJob, PinJob, RetryJob
from p2psched.model.messages import (
    CancelJob,
    Done,
    FetchHistory,
    FetchItem,
    FetchResults,
    History,
    ItemAnswer,
    JobView,
    ResultPage,
    ShowJob,
)
from p2psched.model.once import ResolveTasks, Verdict
from p2psched.model.progress_messages import GetProgress, JobProgress, TaskProgress
from p2psched.model.taskset import TaskSet

if TYPE_CHECKING:
    from p2psched.client.export import Exported

KNOWN_MAX: Final = 64  # results that `Job.result` keeps; the oldest goes first
POLL_MS: Final = 10_000  # longest wait for results in one call


def after(page: ResultPage, position: int) -> int:
    """Where the page behind this one starts, which was asked for from `position` on."""
    return page.next_position if page.next_position >= 0 else position + len(page.segments)


class Job:
    """A submitted job. Any number of these may follow the same job, in any process."""

    def __init__(self, session: Asker, job: JobId) -> None:
        self._session = session
        self.id = job
        self._known: dict[int, TaskResult] = {}  # that `result` was asked for

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
            position = after(page, position)
            ended = page.view.state is not JobState.RUNNING and position >= page.view.segments
            yield page
            del page  # while we wait for the next one, nobody holds this one
            if ended:
                return

    async def as_completed(self) -> AsyncIterator[TaskResult]:
        """Each task once, as soon as its result is committed. Cancelled tasks have none. Holds one
        page of results at a time, however wide the job is. A large value is downloaded before its
        result is yielded."""
        async for page in self.pages():
            async for result in results_with_values(self._session, self.id, page.segments):
                yield result

    def __aiter__(self) -> AsyncIterator[TaskResult]:
        """`async for result in job`: as `as_completed`."""
        return self.as_completed()

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
        if len(found) < view.tasks and view.after.ancestor is not None:
            raise without_result(view)
        if len(found) < view.tasks:
            raise TaskFailed(
                f"job {self.id} was cancelled: {view.tasks - len(found)} of its {view.tasks} tasks "
                "have no result",
                task=str(self.id),
                cause=Cause.CANCELLED,
            )
        return values

    async def result(self, index: int = 0) -> object:
        """The value of one task, once it has ended. Asked for again, it comes from here: a result
        is final, unless this job object has it run again."""
        known = self._known.get(index)
        if known is not None:
            return known.value
        async for page in self.pages():
            for segment in page.segments:
                if index in segment.tasks:
                    (part,) = segment.parts(TaskSet.of(index, index + 1))
                    async for result in results_with_values(self._session, self.id, (part,)):
                        self._keep(result)
                        return result.value
        raise NotFound(f"job {self.id} ended without a result of task {index}")

    def _keep(self, result: TaskResult) -> None:
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[result.index] = result

    async def item(self, index: int) -> ItemAnswer:
        """Where one task stands, with its packed result if it has one."""
        return await self._session.call(FetchItem(self.id, index), ItemAnswer)

    async def progress(self) -> tuple[TaskProgress, ...]:
        """How far the tasks are that run now, in order of index, at most ROWS_MAX of them: those
        that say so (`p2psched.progress`), and those with a limit or rules for their pace."""
        return (await self._session.call(GetProgress(self.id), JobProgress)).tasks

    async def history(self, *, after: int = 0, limit: int = 1000) -> History:
        """Events of the job with a command index above `after`."""
        return await self._session.call(FetchHistory(self.id, after, limit), History)

    def task(self, index: int = 0) -> TaskOfJob:
        """One of its tasks: its attempts, and what they printed."""
        return TaskOfJob(self._session, self.id, index)

    async def story(self, index: int | None = None, *, failed: bool = False) -> list[Step]:
        """Its history in words, oldest first: of all tasks or one; only what went wrong."""
        return (await read_history(self._session, self.id)).steps(index, failed=failed)

    async def download(self, ref: BlobRef, path: Path) -> None:
        """Write a large part of a result to a file, chunk by chunk. Raises ResultLost."""
        if not isinstance(self._session, Session):
            raise UsageError("large results need a client's own session")
        await blobs.download(self._session, ref, path)

    async def cancel(self) -> None:
        """Final once this returns: no later result turns a task into a success."""
        await self._session.call(CancelJob(self.id), Done)

    async def retry(self, tasks: TaskSet | None = None) -> None:
        """Run again what failed, and what has no copy of its result left; only those of `tasks` if
        they are given. Raises Refused for a job that was cancelled."""
        self._known.clear()
        await self._session.call(RetryJob(self.id, tasks or TaskSet()), Done)

    async def resolve(
        self,
        tasks: TaskSet | int,
        verdict: Literal["succeeded", "failed", "run-again"],
        *,
        result: object = None,
        reason: str = "",
        by: str = "",
    ) -> None:
        """Say what became of tasks that are unknown (`start="once"`, and their peer was lost).

        `result` is what a function returned, or (bytes) what a program printed. `by` and `reason`
        stand in the history. Raises Refused unless all of them are unknown."""
        chosen = TaskSet.of(tasks, tasks + 1) if isinstance(tasks, int) else tasks
        data = b""
        if verdict == "succeeded":
            view = await self.show()
            data = results_by_hand(view.kind, result, len(chosen))
        self._known.clear()
        said = Verdict[verdict.replace("-", "_").upper()]
        call = ResolveTasks(self.id, chosen, said, by or who_am_i(), reason, data)
        await self._session.call(call, Done)

    async def pin(self, *, pinned: bool = True) -> None:
        """Keep it, or (not `pinned`) let it be forgotten when its time is over."""
        await self._session.call(PinJob(self.id, pinned), Done)

    async def forget(self) -> None:
        """Drop it with its results, for good. Raises Refused while it runs."""
        await self._session.call(ForgetJob(self.id), Done)

    async def export(
        self,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 (the word that everybody uses)
        overwrite: bool = False,
    ) -> Exported:
        """Write what has ended to a file: see `client.export.export_job`. Opens no pickle."""
        from p2psched.client.export import export_job  # noqa: PLC0415 (loads databases)

        return await export_job(self, path, form=format, overwrite=overwrite)

"""Waiting for jobs: progress for a terminal, outputs of tasks as they end, a verdict at the end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final, TextIO

import typer

from p2psched.cli.batches import note_failed_inputs
from p2psched.cli.describe import ended_tasks, failure, job_fields, summary, unknown_text
from p2psched.cli.live import STREAMS, LiveTask
from p2psched.cli.output import Output, note, print_json, write_bytes, write_line
from p2psched.cli.running import bar_text, watched
from p2psched.cli.tasks import TaskEnd, first_failures, open_segment
from p2psched.client.client import Client, Job
from p2psched.model.errors import TimedOut
from p2psched.model.ids import short
from p2psched.model.job import JobState
from p2psched.model.messages import JobView
from p2psched.model.progress_messages import TaskProgress

FAILURES_SHOWN: Final = 5
BAR_WIDTH: Final = 30
BAR_PERIOD_S: Final = 0.1


class Bar:
    """One line on stderr that shows how far a job is; nothing if stderr is no terminal.

    Outputs may go to the same terminal: `hide` it first.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._due_s = 0.0
        self._drawn = False
        self._view: JobView | None = None
        self._running = ""  # how far a task is

    @property
    def is_shown(self) -> bool:
        return self._shown

    def tell(self, rows: Sequence[TaskProgress]) -> None:
        """How far the tasks are that run."""
        self._running = bar_text(rows)
        if self._view is not None:
            self.draw(self._view, at_once=True)

    def draw(self, view: JobView, *, at_once: bool = False) -> None:
        self._view = view
        now_s = time.monotonic()
        if not self._shown or (now_s < self._due_s and not at_once):
            return
        self._due_s = now_s + BAR_PERIOD_S
        done = ended_tasks(view)
        filled = BAR_WIDTH * done // view.tasks
        line = f"{'━' * filled}{'╌' * (BAR_WIDTH - filled)} {done}/{view.tasks}"
        if view.failed:
            line += f"  {view.failed} failed"
        line += self._running
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()
        self._drawn = True

    def hide(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


async def follow_job(
    client: Client, job: Job, *, output: Output, show_outputs: bool, timeout_s: float | None
) -> JobView:
    """Until the job has ended. Raises TimedOut; the job goes on."""
    show = show_outputs and output is Output.TABLE
    bar = Bar(shown=output is Output.TABLE)
    try:
        async with asyncio.timeout(timeout_s):
            view = await job.show()
            if show and view.tasks == 1:
                await LiveTask(client, job, view.task_set.first).follow(alone=True)
                show = False
                view = await job.show()
            bar.draw(view)
            async with watched(job, bar.tell, wanted=bar.is_shown):
                return await _follow_many(job, view, bar, show=show)
    except TimeoutError as error:
        name = short(job.id)
        raise TimedOut(
            f"job {name} did not end within {timeout_s:g} s and goes on: "
            f"`p2psched job wait {name}` comes back to it"
        ) from error
    finally:
        bar.hide()


async def _follow_many(job: Job, view: JobView, bar: Bar, *, show: bool) -> JobView:
    position = 0 if show else view.segments
    doubted = view.once.unknown
    if doubted:
        note(unknown_text(view))
    async for page in job.pages(position=position):
        view = page.view
        if view.once.unknown != doubted:
            bar.hide()
            doubted = view.once.unknown
            if doubted:
                note(unknown_text(await job.show()))
        if show and page.segments:
            bar.hide()
            for segment in page.segments:
                for task in open_segment(job.id, segment):
                    write_outputs(task)
        bar.draw(view, at_once=show)
    return view


def write_outputs(task: TaskEnd) -> None:
    """The output of an ended task, each line with the task's index."""
    for stream in STREAMS:
        target: TextIO = sys.stderr if stream == "stderr" else sys.stdout
        data = task.rest(stream)
        if data:
            write_bytes(target, prefixed(data, task.index))


def prefixed(data: bytes, index: int) -> bytes:
    """`[7] ` before every line. The last line gets an end if it has none."""
    mark = f"[{index}] ".encode()
    lines = data.removesuffix(b"\n").split(b"\n")
    return b"".join(mark + line + b"\n" for line in lines)


async def conclude(client: Client, view: JobView, output: Output) -> None:
    """Say how a job ended. Raises typer.Exit(1) unless it succeeded."""
    match output:
        case Output.JSON:
            print_json(job=job_fields(view))
        case Output.QUIET:
            write_line(short(view.job))
        case Output.TABLE:
            note(summary(view))
            failures = await first_failures(client, view, limit=FAILURES_SHOWN)
            for task in failures:
                note(failure(task))
            if view.failed > len(failures):
                note(
                    f"and {view.failed - len(failures):,} more: "
                    f"`p2psched job show {short(view.job)}` has them all"
                )
    # Whole: the view of a page of results does not name the tasks.
    inputs_failed = await note_failed_inputs(client, await Job(client.session, view.job).show())
    if view.state is not JobState.SUCCEEDED or inputs_failed:
        raise typer.Exit(1)

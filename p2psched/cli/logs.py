"""`p2psched job logs`: what tasks print, while they run and after they have ended."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk
from p2psched.cli.describe import log_fields, reason
from p2psched.cli.follow import write_outputs
from p2psched.cli.interrupt import detachable
from p2psched.cli.jobs import JobArgument
from p2psched.cli.live import LiveTask
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Output, note, print_json, write_line
from p2psched.cli.results import collect, say_if_running
from p2psched.cli.tasks import TaskEnd, open_segment, split_task
from p2psched.client.client import Client, Job
from p2psched.model.errors import UsageError
from p2psched.model.messages import JobView

LOGS_EXAMPLES: Final = """\b
Examples:
  p2psched job logs last
  p2psched job logs 1a2b/17 --stderr
  p2psched job logs last -f
"""


@talks_to_peers
def logs(
    target: Target,
    job: JobArgument,
    stderr: Annotated[
        bool, typer.Option("--stderr", help="Only what went to stderr, on our stdout.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job, or the task, has ended.")
    ] = False,
) -> None:
    """Show what tasks print. ID/INDEX is one task, also while it runs.

    Standard output comes on stdout and standard error on stderr; each line of an array begins with
    the index of its task.
    """
    text, index = split_task(job)
    only = "stderr" if stderr else None

    async def work(client: Client) -> None:
        found = await client.job(text)
        view = await found.show()
        chosen = view.task_set.first if index is None and view.tasks == 1 else index
        if target.output is not Output.TABLE:
            _print_ended(await collect(client, view, only=index), view, target.output)
        elif follow:
            await detachable(found, _follow_logs(client, found, view, chosen, only))
        elif chosen is not None:
            await _show_task(client, found, chosen, only)
        else:
            for task in await collect(client, view, only=None):
                _write_log(task, only)
            say_if_running(view)

    if follow and target.output is not Output.TABLE:
        raise UsageError("--follow shows bytes as they come: leave --output away")
    talk(target, work)


def _print_ended(tasks: list[TaskEnd], view: JobView, output: Output) -> None:
    if output is Output.QUIET:
        for task in tasks:
            write_line(task.name)
    else:
        print_json(job=view.job, logs=[log_fields(task) for task in tasks])


async def _follow_logs(
    client: Client, job: Job, view: JobView, index: int | None, only: str | None
) -> None:
    if index is not None:
        end = await LiveTask(client, job, index, only=only).follow(alone=view.tasks == 1)
        _say_traceback(end)
        return
    async for page in job.pages():
        for segment in page.segments:
            for task in open_segment(job.id, segment):
                _write_log(task, only)


async def _show_task(client: Client, job: Job, index: int, only: str | None) -> None:
    live = LiveTask(client, job, index, only=only)
    _say_traceback(await live.show_now())


def _write_log(task: TaskEnd, only: str | None) -> None:
    write_outputs(task, only=only)
    if task.header.get("traceback"):
        note(f"[{task.index}] {reason(task.cause, task.header)}")


def _say_traceback(task: TaskEnd | None) -> None:
    """A function that raised has said nothing itself; a program that never began neither."""
    if task is None or task.ok:
        return
    text = task.header.get("traceback") or task.header.get("message")
    if text:
        sys.stderr.write(f"{str(text).rstrip()}\n")

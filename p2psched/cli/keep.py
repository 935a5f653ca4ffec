"""`p2psched job rm`, `job pin`, `job unpin`, `job retry`: how long a job is kept, and once more."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk
from p2psched.cli.describe import job_fields, title
from p2psched.cli.follow import conclude, follow_job
from p2psched.cli.interrupt import detachable
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Output, count, print_json, write_line
from p2psched.client.client import Client
from p2psched.model.errors import UsageError
from p2psched.model.ids import short
from p2psched.model.messages import JobView
from p2psched.model.taskset import TaskSet

RM_EXAMPLES: Final = """\b
Examples:
  p2psched job rm 1a2b
  p2psched job rm last hello
"""
PIN_EXAMPLES: Final = """\b
Example:
  p2psched job pin 1a2b
"""
UNPIN_EXAMPLES: Final = """\b
Example:
  p2psched job unpin 1a2b
"""
RETRY_EXAMPLES: Final = """\b
Examples:
  p2psched job retry last
  p2psched job retry 1a2b --tasks 3,7-9 --wait
"""


@talks_to_peers
def rm(
    target: Target,
    jobs: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Ids or their first digits, names, or 'last'."),
    ],
) -> None:
    """Forget jobs that have ended, with their results and history.

    The id of a forgotten job stays taken for a day: submitting it again starts nothing.
    """

    async def work(client: Client) -> list[JobView]:
        found = [await client.job(text) for text in jobs]  # all or none: a typo removes nothing
        views = [await job.show() for job in found]
        for view in views:
            if view.ended_ms is None:
                raise UsageError(
                    f"{title(view)} still runs: `p2psched job cancel {short(view.job)}` first"
                )
        for job in found:
            await job.forget()
        return views

    views = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(removed=[view.job for view in views])
        case Output.QUIET:
            for view in views:
                write_line(short(view.job))
        case Output.TABLE:
            for view in views:
                write_line(f"{title(view)}: forgotten")


@talks_to_peers
def pin(target: Target, job: JobArgument) -> None:
    """Keep a job and its results until it is unpinned or removed."""
    _pin(target, job, pinned=True)


@talks_to_peers
def unpin(target: Target, job: JobArgument) -> None:
    """Let a pinned job go when its time is over."""
    _pin(target, job, pinned=False)


def _pin(target: Target, text: str, *, pinned: bool) -> None:
    async def work(client: Client) -> JobView:
        job = await client.job(text)
        await job.pin(pinned=pinned)
        return await job.show()

    view = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(job=job_fields(view))
        case Output.QUIET:
            write_line(short(view.job))
        case Output.TABLE:
            write_line(f"{title(view)}: {'kept until you remove it' if pinned else 'unpinned'}")


@talks_to_peers
def retry(
    target: Target,
    job: JobArgument,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", metavar="INDICES", help="Only these of them, as 3 or 1,7-9."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; exit 0 only if all tasks succeed.")
    ] = False,
) -> None:
    """Run failed tasks again, and those whose results no peer has any more."""
    chosen = TaskSet() if tasks is None else _indices(tasks)

    async def work(client: Client) -> None:
        found = await client.job(job)
        before = await found.show()
        await found.retry(chosen)
        after = await found.show()
        if wait:
            following = follow_job(
                client, found, output=target.output, show_outputs=True, timeout_s=None
            )
            await conclude(client, await detachable(found, following), target.output)
        else:
            _say_retried(target.output, before, after)

    talk(target, work)


def _say_retried(output: Output, before: JobView, after: JobView) -> None:
    again = max(0, _ended(before) - _ended(after))
    match output:
        case Output.JSON:
            print_json(job=job_fields(after), again=again)
        case Output.QUIET:
            write_line(short(after.job))
        case Output.TABLE if again or after.ended_ms is None:
            write_line(f"{title(after)}: {count(again, 'task')} again")
        case Output.TABLE:
            write_line(f"{title(after)}: nothing to run again, no task failed or lost its result")


def _ended(view: JobView) -> int:
    return view.succeeded + view.failed


def _indices(text: str) -> TaskSet:
    try:
        return TaskSet.parse(text)
    except ValueError as error:
        raise UsageError(f"--tasks: {error}: write it like 3 or 1,7-9") from error

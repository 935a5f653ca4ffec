"""`p2psched job results --save`: values and outputs of tasks as files, and what is lost of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2psched.cli.describe import ended_tasks, title
from p2psched.cli.output import Output, count, note, print_json, size, write_line
from p2psched.cli.progress import Progress
from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.client.saving import save_results
from p2psched.model.errors import ResultLost
from p2psched.model.ids import JobId, short
from p2psched.model.job import JobState
from p2psched.model.messages import JobView

LOST_NAMED: Final = 5


async def save(
    client: Client, view: JobView, folder: Path, *, only: int | None, force: bool, output: Output
) -> None:
    """Raises ResultLost if something is nowhere any more; the others are saved."""
    progress = Progress("saved", view.result_bytes)
    try:
        saved = await save_results(
            client.session,
            Job(client.session, view.job),
            view,
            folder,
            only=only,
            overwrite=force,
            progress=progress,
        )
    finally:
        progress.hide()
    match output:
        case Output.JSON:
            print_json(
                job=view.job,
                state=view.state,
                path=str(folder),
                files=saved.files,
                bytes=saved.bytes,
                present=saved.present,
                lost=saved.lost_count,
            )
        case Output.QUIET:
            write_line(str(folder))
        case Output.TABLE:
            text = f"{count(saved.files, 'file')} of {size(saved.bytes)} in {folder}"
            if saved.present:
                text += f", {saved.present:,} were there already"
            write_line(f"{title(view)}: {text}")
            if not saved.files and not saved.present and not saved.lost_count:
                note("no task has a value or an output: `p2psched job logs` has what they printed")
    if view.state is JobState.RUNNING:
        ended = f"{ended_tasks(view):,} of {view.tasks:,} tasks ended so far"
        note(f"{title(view)} goes on: {ended}; save again for the rest")
    if saved.lost_count:
        raise lost(view.job, saved.lost, saved.lost_count)


def lost(job: JobId, tasks: Sequence[int], number: int | None = None) -> ResultLost:
    """The error of results that no peer has any more: one line, with what to do."""
    number = len(tasks) if number is None else number
    named = ", ".join(map(str, sorted(set(tasks))[:LOST_NAMED]))
    more = ", ..." if len(set(tasks)) > LOST_NAMED else ""
    return ResultLost(
        f"no peer has {count(number, 'large result')} of job {short(job)} any more (task {named}"
        f"{more}): `p2psched job retry {short(job)}` computes what is lost again"
    )


def say_lost(view: JobView) -> None:
    if view.lost:
        note(
            f"{count(view.lost, 'task')} lost the last copy of a result: "
            f"`p2psched job retry {short(view.job)}` computes it again"
        )

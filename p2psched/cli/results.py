"""`p2psched job results`: how each task of a job ended.

Plain values of functions are shown. Others are pickles, and opening one runs what its task put into
it: only `--unpickle` does, in the process of whoever asked.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from p2psched.cli.batches import print_outcomes, print_outcomes_as_json
from p2psched.cli.connect import label, talk
from p2psched.cli.describe import ended_tasks, reason, task_fields, title
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, reads_from_peers
from p2psched.cli.output import (
    Column,
    Output,
    count,
    note,
    one_line,
    print_json,
    print_table,
    size,
    write_bytes,
    write_line,
)
from p2psched.cli.save import lost, save, say_lost
from p2psched.cli.tasks import TaskEnd, ended_so_far, split_task
from p2psched.client import blobs
from p2psched.client.client import Client
from p2psched.client.downloads import Downloads
from p2psched.client.results import TaskResult, is_pickle, open_value
from p2psched.client.shapes import shape_of
from p2psched.model import items, values
from p2psched.model.blob import BlobRef
from p2psched.model.errors import NotFound, ResultLost, UsageError
from p2psched.model.ids import short
from p2psched.model.job import JobState
from p2psched.model.messages import JobView

# Up to here results are shown in order of index; more come in the order in which they were
# committed, since sorting would need all of them in memory.
SORTED_TASKS_MAX: Final = 10_000
REPR_LEN_MAX: Final = 2000

RESULTS_EXAMPLES: Final = """\b
Examples:
  p2psched job results last
  p2psched job results last -o json | jq '.results[].exit'
  p2psched job results digits --unpickle
  p2psched job results digits --raw 7 > seven.pickle
  p2psched job results 1a2b --save here
"""


@reads_from_peers
def results(
    target: Target,
    job: JobArgument,
    *,
    raw: Annotated[
        int | None,
        typer.Option(
            "--raw",
            metavar="INDEX",
            help="One task: its packed value as it is, or a program's stdout.",
        ),
    ] = None,
    unpickle: Annotated[
        bool,
        typer.Option("--unpickle", help="Open pickled and large values too. That may run code."),
    ] = False,
    save_to: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="DIR", help="Write values and outputs to DIR/INDEX/NAME instead."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
) -> None:
    """List how the tasks ended, with outputs or values. ID/INDEX is one task.

    A job of inputs prints a line for each input, in their order; exit 1 if one failed.
    """
    name, index = split_task(job)
    if save_to is not None and (raw is not None or unpickle):
        raise UsageError("--save writes everything as it is: leave --raw and --unpickle away")
    if force and save_to is None:
        raise UsageError("--force is for --save DIR")

    async def work(client: Client) -> bool:
        view = await (await client.job(name)).show()
        if save_to is not None:
            await save(client, view, save_to, only=index, force=force, output=target.output)
            return True
        if raw is not None:
            (task,) = await collect(client, view, only=raw)
            await _write_raw(client, task, view)
            return True
        say_if_running(view)
        if shape_of(view) is not None and index is None and target.output is not Output.QUIET:
            table = target.output is Output.TABLE
            return not await (print_outcomes if table else print_outcomes_as_json)(client, view)
        found = await collect(client, view, only=index)
        await _print(client, view, found, target.output, unpickle=unpickle)
        return True

    if not talk(target, work):
        raise typer.Exit(1)


async def _print(
    client: Client, view: JobView, found: list[TaskEnd], output: Output, *, unpickle: bool
) -> None:
    match output:
        case Output.JSON:
            fields = [await _with_value(client, task, view, unpickle=unpickle) for task in found]
            print_json(job=view.job, state=view.state, results=fields, **label(client))
        case Output.QUIET:
            for task in found:
                write_line(task.name)
        case Output.TABLE:
            last = "value" if view.kind == "function" else "output"
            columns = (
                Column(title="index", right=True),
                Column(title="cause"),
                Column(title=last, shrink_to=16),
            )
            rows = [
                (task.index, task.cause, await _short_result(client, task, view, unpickle=unpickle))
                for task in found
            ]
            print_table(columns, rows)
    say_lost(view)


async def collect(client: Client, view: JobView, *, only: int | None) -> list[TaskEnd]:
    found = [
        task async for task in ended_so_far(client, view) if only is None or task.index == only
    ]
    if only is not None and not found:
        what = "has not ended" if only in view.task_set else f"does not exist in {title(view)}"
        raise NotFound(f"task {only} {what}: `p2psched job show {short(view.job)}`")
    return sorted(found, key=lambda task: task.index) if len(found) <= SORTED_TASKS_MAX else found


async def _write_raw(client: Client, task: TaskEnd, view: JobView) -> None:
    if view.kind != "function":
        write_bytes(sys.stdout, task.rest("stdout"))
    elif values.kind_of(task.value) == values.BLOB:
        sys.stdout.flush()
        await blobs.download(
            client.session, BlobRef(*values.blob_of(task.value)), sys.stdout.buffer
        )
    else:
        write_bytes(sys.stdout, task.value)


async def _with_value(
    client: Client, task: TaskEnd, view: JobView, *, unpickle: bool
) -> dict[str, object]:
    """JSON fields; `value` is what Python writes, null where it was not opened."""
    fields = task_fields(task)
    if view.kind == "function":
        opens = task.ok and _may_open(task, unpickle)
        fields["value"] = await _opened(client, task) if opens else None
    return fields


async def _short_result(client: Client, task: TaskEnd, view: JobView, *, unpickle: bool) -> str:
    if not task.ok:
        return reason(task.cause, task.header)
    if view.kind == "function":
        return await _opened(client, task) if _may_open(task, unpickle) else _closed(task)
    first, _, more = task.stdout.decode(errors="replace").partition("\n")
    parts = [f"{first} …" if more.strip() else first] if task.stdout else []
    parts += [f"[{name}, {size(ref.size)}]" for name, ref in task.outputs]
    return " ".join(parts)


def _closed(task: TaskEnd) -> str:
    """What a value is that was not opened."""
    files = task.files_in_value
    inside = f" with {count(len(files), 'file')}" if files else ""
    text = f"{task.value_kind}{' value' if task.value_kind == 'large' else ''}{inside}"
    text += f" of {size(task.value_bytes)}"
    if task.refs:
        return f"[{text}: --save DIR brings it]"
    return f"[{text}: --unpickle opens it]"


def _may_open(task: TaskEnd, unpickle: bool) -> bool:
    return unpickle or not is_pickle(task.value)


async def _opened(client: Client, task: TaskEnd) -> str:
    """The value as Python writes it, brought here if it is large. Raises ResultLost."""
    if not task.value:
        return "None"
    try:
        if task.refs:
            item = items.pack_value(task.value)
            result = TaskResult(task.job, task.index, task.cause, item)
            text = repr((await Downloads.of(client.session).complete(result)).value)
        else:
            text = repr(open_value(task.value))
    except ResultLost as error:
        raise lost(task.job, [task.index]) from error
    except Exception as error:  # noqa: BLE001 (whatever a pickle or a repr does)
        text = f"can't be opened here: {type(error).__name__}: {error}"
    return one_line(text)[:REPR_LEN_MAX]


def say_if_running(view: JobView) -> None:
    if view.state is JobState.RUNNING:
        note(f"{title(view)} goes on: {ended_tasks(view):,} of {view.tasks:,} tasks ended so far")

"""`p2psched job results`: how each task of a job ended.

Plain values of functions are shown. Others are pickles, and opening one runs what its task put into
it: only `--unpickle` does, in the process of whoever asked.
"""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk
from p2psched.cli.describe import ended_tasks, reason, task_fields, title
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import (
    Column,
    Output,
    note,
    one_line,
    print_json,
    print_table,
    size,
    write_bytes,
    write_line,
)
from p2psched.cli.tasks import TaskEnd, ended_so_far
from p2psched.client.client import Client
from p2psched.client.results import is_pickle, open_value
from p2psched.model.errors import NotFound
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
"""


@talks_to_peers
def results(
    target: Target,
    job: JobArgument,
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
        typer.Option("--unpickle", help="Open pickled values too. That may run code."),
    ] = False,
) -> None:
    """List how the tasks ended, with outputs or values."""

    async def work(client: Client) -> tuple[JobView, list[TaskEnd]]:
        view = await (await client.job(job)).show()
        return view, await collect(client, view, only=raw)

    view, found = talk(target, work)
    if raw is not None:
        _write_raw(found[0], view)
        return
    say_if_running(view)
    match target.output:
        case Output.JSON:
            fields = [_with_value(task, view, unpickle=unpickle) for task in found]
            print_json(job=view.job, state=view.state, results=fields)
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
                (task.index, task.cause, _short_result(task, view, unpickle=unpickle))
                for task in found
            ]
            print_table(columns, rows)


async def collect(client: Client, view: JobView, *, only: int | None) -> list[TaskEnd]:
    found = [
        task async for task in ended_so_far(client, view) if only is None or task.index == only
    ]
    if only is not None and not found:
        what = "has not ended" if only in view.task_set else f"does not exist in {title(view)}"
        raise NotFound(f"task {only} {what}: `p2psched job show {short(view.job)}`")
    return sorted(found, key=lambda task: task.index) if len(found) <= SORTED_TASKS_MAX else found


def _write_raw(task: TaskEnd, view: JobView) -> None:
    write_bytes(sys.stdout, task.value if view.kind == "function" else task.rest("stdout"))


def _with_value(task: TaskEnd, view: JobView, *, unpickle: bool) -> dict[str, object]:
    """JSON fields; `value` is what Python writes, null where it was not opened."""
    fields = task_fields(task)
    if view.kind == "function":
        fields["value"] = _opened(task) if task.ok and _may_open(task, unpickle) else None
    return fields


def _short_result(task: TaskEnd, view: JobView, *, unpickle: bool) -> str:
    if not task.ok:
        return reason(task.cause, task.header)
    if view.kind == "function":
        if _may_open(task, unpickle):
            return _opened(task)
        return f"[pickle of {size(len(task.value))}: --unpickle opens it]"
    first, _, more = task.stdout.decode(errors="replace").partition("\n")
    return f"{first} …" if more.strip() else first


def _may_open(task: TaskEnd, unpickle: bool) -> bool:
    return unpickle or not is_pickle(task.value)


def _opened(task: TaskEnd) -> str:
    """The value as Python writes it."""
    try:
        text = repr(open_value(task.value)) if task.value else "None"
    except Exception as error:  # noqa: BLE001 (whatever a pickle or a repr does)
        text = f"can't be opened here: {type(error).__name__}: {error}"
    return one_line(text)[:REPR_LEN_MAX]


def say_if_running(view: JobView) -> None:
    if view.state is JobState.RUNNING:
        note(f"{title(view)} goes on: {ended_tasks(view):,} of {view.tasks:,} tasks ended so far")

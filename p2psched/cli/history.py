"""`p2psched job history`: what happened to a job, in the order on which all peers agreed."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from p2psched.cli.connect import Label, label, talk
from p2psched.cli.describe import Names
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, reads_from_peers
from p2psched.cli.output import (
    Column,
    Output,
    moment,
    note,
    print_json,
    print_table,
    span,
    write_line,
)
from p2psched.cli.tasks import split_task
from p2psched.client.attempts import attempts_of
from p2psched.client.client import Client
from p2psched.client.story import Read, Step, read_history
from p2psched.model.errors import NotFound, UsageError
from p2psched.model.ids import PeerId, short
from p2psched.model.messages import JobView

HISTORY_EXAMPLES: Final = """\b
Examples:
  p2psched job history last
  p2psched job history last 17
  p2psched job history 1a2b --failed -o json
"""

_COLUMNS: Final = (
    Column(title="time (UTC)"),
    Column(title="ledger s", right=True),
    Column(title="event"),
    Column(title="tasks", shrink_to=5),
    Column(title="peer", shrink_to=4),
    Column(title="grant", right=True),
    Column(title="cause"),
)


@reads_from_peers
def history(
    target: Target,
    job: JobArgument,
    index: Annotated[
        int | None, typer.Argument(metavar="INDEX", min=0, help="One task; as ID/INDEX.")
    ] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only what went wrong.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Stop after so many events.")
    ] = 10_000,
) -> None:
    """List what happened to a job, or to one task of it, in the order that all peers agreed on.

    Each line is a command of the ledger: its wall time is of whoever led, its ledger time never
    runs backwards. `ended` is a result that is committed.
    """
    text, in_text = split_task(job)
    if index is not None and in_text is not None:
        raise UsageError(f"name the task once: {text}/{in_text}, or {text} {index}")
    one = in_text if index is None else index
    # What concerns one task may stand at the end of a million events: it is looked for.
    upto = limit if one is None and not failed else None

    async def work(client: Client) -> tuple[JobView, Read, Names, Label]:
        found = await client.job(text)
        read = await read_history(client.session, found.id, upto)
        names = {peer.info.peer: peer.info.name for peer in await client.peers()}
        return await found.show(), read, names, label(client)

    view, read, names, age = talk(target, work)
    if one is not None and view.task_set and one not in view.task_set:
        raise NotFound(f"job {short(view.job)} has no task {one}: it has {view.task_set}")
    every = read.steps(one, failed=failed)
    steps, is_cut = every[:limit], len(every) > limit or len(read.events) == upto
    match target.output:
        case Output.JSON:
            numbers = {} if one is None else _numbers(read, one)
            events = [_fields(step, names, numbers) for step in steps]
            print_json(job=view.job, events=events, more=is_cut, **age)
        case Output.QUIET:
            for step in steps:
                write_line(str(step.index))
        case Output.TABLE:
            _print(steps, names)
            if is_cut:
                note(f"only the first {limit:,} events: --limit shows more")


def _numbers(read: Read, index: int) -> dict[int, int]:
    """Which attempt of the task each grant is."""
    return {one.grant: one.number for one in attempts_of(read.events, index)}


def _print(steps: list[Step], names: Names) -> None:
    days = {(moment(step.wall_ms) or "")[:10] for step in steps}
    start = 11 if len(days) == 1 else 5  # without the year
    rows = [
        (
            (moment(step.wall_ms) or "")[start:-1],
            f"{step.at_ms / 1000:.3f}",
            f"{step.event}, demoted" if step.is_demoted else step.event,
            str(step.tasks) if step.tasks else "",
            _name(step.peer, names),
            "" if step.grant is None else str(step.grant),
            _cause(step, names),
        )
        for step in steps
    ]
    print_table(_COLUMNS, rows)


def _name(peer: PeerId | None, names: Names) -> str:
    return "" if peer is None else names.get(peer, short(peer))


def _cause(step: Step, names: Names) -> str:
    if step.other is not None:
        return f"{_name(step.other, names)} was busy"
    if step.until_ms is not None:
        until = (moment(step.until_wall_ms) or "")[11:-1]
        return f"for {_span_us(1000 * (step.until_ms - step.at_ms))}, until {until}"
    if step.found_on is not None:
        return f"{step.cause}, found on {_name(step.found_on, names)}"
    took = f", {_span_us(step.busy_us)}" if step.busy_us else ""
    return f"{step.cause}{took}"


def _span_us(us: int) -> str:
    return span(us / 1_000_000) if us >= 1_000_000 else f"{us / 1000:.0f} ms"


def _fields(step: Step, names: Names, numbers: dict[int, int]) -> dict[str, object]:
    return {
        "index": step.index,
        "time": moment(step.wall_ms),
        "ledger_ms": step.at_ms,
        "event": step.event.replace(" ", "-"),
        "tasks": str(step.tasks),
        "peer": _name(step.peer, names) or None,
        "grant": step.grant,
        "attempt": None if step.grant is None else numbers.get(step.grant),
        "cause": _cause(step, names) if step.other is not None else step.cause or None,
        "found_on": _name(step.found_on, names) or None,
        "busy_us": step.busy_us,
        "demoted": step.is_demoted,
        "until": None if step.until_ms is None else moment(step.until_wall_ms),
        "until_ledger_ms": step.until_ms,
    }

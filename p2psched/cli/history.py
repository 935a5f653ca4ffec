"""`p2psched job history`: what happened to a job, in the order on which all peers agreed."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from p2psched.cli.connect import Label, label, talk
from p2psched.cli.describe import Names
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, reads_from_peers
from p2psched.cli.output import Column, Output, moment, note, print_json, print_table, write_line
from p2psched.client.client import Client, Job
from p2psched.model.commands import (
    Event,
    GivenBack,
    Granted,
    JobAdded,
    JobEnded,
    JobReopened,
    Recorded,
    ResultRefused,
    ResultsLost,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.ids import PeerId, short
from p2psched.model.messages import JobView
from p2psched.model.moves import Moved
from p2psched.model.once import Decided, Doubted, word_of
from p2psched.model.taskset import EMPTY, TaskSet

HISTORY_EXAMPLES: Final = """\b
Example:
  p2psched job history last
"""


@reads_from_peers
def history(
    target: Target,
    job: JobArgument,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Stop after so many events.")
    ] = 10_000,
) -> None:
    """List what happened to a job, in the order that all peers agreed on."""

    async def work(client: Client) -> tuple[JobView, list[Stamped], Names, Label]:
        found = await client.job(job)
        events = await events_of(found, limit)
        names = {peer.info.peer: peer.info.name for peer in await client.peers()}
        return await found.show(), events, names, label(client)

    view, events, names, age = talk(target, work)
    rows = [(stamped, *_event_row(stamped.event, names)) for stamped in events]
    match target.output:
        case Output.JSON:
            print_json(job=view.job, events=[_event_fields(*row) for row in rows], **age)
        case Output.QUIET:
            for stamped in events:
                write_line(str(stamped.index))
        case Output.TABLE:
            columns = (
                Column(title="time (UTC)"),
                Column(title="event"),
                Column(title="tasks", shrink_to=8),
                Column(title="peer", shrink_to=6),
                Column(title="cause"),
            )
            print_table(
                columns,
                [
                    ((moment(stamped.wall_ms) or "")[11:-1], event, tasks, peer, cause)
                    for stamped, event, tasks, peer, cause in rows
                ],
            )
            if len(events) >= limit:
                note(f"only the first {limit:,} events: --limit shows more")


async def events_of(job: Job, limit: int) -> list[Stamped]:
    """The first of its history."""
    found: list[Stamped] = []
    after = 0
    while len(found) < limit:
        page = await job.history(after=after)
        found += page.events
        if not page.more or not page.events:
            break
        after = page.events[-1].index
    return found[:limit]


def _event_row(event: Event, names: Names) -> tuple[str, TaskSet, str, str]:
    """What happened, to which tasks, at which peer, and why."""

    def name(peer: PeerId) -> str:
        return names.get(peer, short(peer))

    match event:
        case Granted(tasks=tasks, peer=peer):
            return "granted", tasks, name(peer), ""
        case Revoked(tasks=tasks, peer=peer, cause=cause):
            return "taken away", tasks, name(peer), cause
        case GivenBack(tasks=tasks, peer=peer):
            return "given back", tasks, name(peer), "the peer is drained"
        case Moved(tasks=tasks, peer=peer, taker=taker):
            return "moved", tasks, name(taker), f"{name(peer)} was busy"
        case Recorded(segment=segment, peer=peer):
            return "ended", segment.tasks, name(peer), segment.cause
        case Retried(segment=segment, peer=peer):
            return "to be retried", segment.tasks, name(peer), segment.cause
        case _:
            return _job_row(event)


def _job_row(event: Event) -> tuple[str, TaskSet, str, str]:
    """What happened to the job, or to tasks that nobody owns."""
    match event:
        case JobAdded():
            return "submitted", EMPTY, "", ""
        case ResultRefused(tasks=tasks):
            return "result refused", tasks, "", "old grant"
        case JobEnded(state=state):
            return "job ended", EMPTY, "", state
        case JobReopened(tasks=tasks):
            return "run again", tasks, "", "asked for"
        case Doubted(tasks=tasks):
            return "unknown", tasks, "", "its peer was lost"
        case Decided(tasks=tasks, verdict=verdict, by=by):
            return "decided", tasks, "", f"{word_of(verdict)}, says {by or 'somebody'}"
        case ResultsLost(tasks=tasks):
            return "result lost", tasks, "", "last copy gone"
        case _:  # what happens to peers stands in no job's history
            return type(event).__name__, EMPTY, "", ""


def _event_fields(
    stamped: Stamped, event: str, tasks: TaskSet, peer: str, cause: str
) -> dict[str, object]:
    return {
        "index": stamped.index,
        "time": moment(stamped.wall_ms),
        "ledger_ms": stamped.at_ms,
        "event": event.replace(" ", "-"),
        "tasks": str(tasks),
        "peer": peer or None,
        "cause": cause or None,
    }

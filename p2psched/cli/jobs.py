"""`p2psched jobs`, and `job show`, `job wait`, `job cancel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from p2psched.cli.after import aborted_for_text, after_text, waits_text
from p2psched.cli.backups import backups_text, replicas_text
from p2psched.cli.batches import command_text
from p2psched.cli.complete import complete_jobs
from p2psched.cli.connect import Label, label, talk
from p2psched.cli.describe import (
    ended_tasks,
    failure,
    job_fields,
    moves_text,
    per_peer,
    short_ids,
    summary,
    task_fields,
    title,
    unknown_text,
)
from p2psched.cli.follow import conclude, follow_job
from p2psched.cli.interrupt import detachable
from p2psched.cli.limits import limit_fields, limits_text
from p2psched.cli.options import (
    AtOption,
    Target,
    duration,
    one_time,
    reads_from_peers,
    talks_to_peers,
)
from p2psched.cli.output import (
    Column,
    Output,
    count,
    moment,
    note,
    print_json,
    print_sheet,
    print_table,
    size,
    span,
    write_line,
)
from p2psched.cli.precedence import precedence_text, preempted_text
from p2psched.cli.resumed import resumed_text
from p2psched.cli.running import print_running, progress_fields, running_tasks
from p2psched.cli.tasks import TaskEnd, first_failures
from p2psched.client.client import Client
from p2psched.client.events import past
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.isolation import Isolation
from p2psched.model.job import JobState
from p2psched.model.messages import FetchHistory, FindJob, History, JobList, JobView, ListJobs
from p2psched.model.once import Start
from p2psched.model.progress_messages import TaskProgress
from p2psched.observe.clock import BootClock

FAILURES_LISTED: Final = 20

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        autocompletion=complete_jobs,
        help="An id or its first digits, a name, or 'last'.",
    ),
]

JOBS_EXAMPLES: Final = """\b
Examples:
  p2psched jobs
  p2psched jobs -o quiet | head -1
  p2psched jobs --at 1200
"""
SHOW_EXAMPLES: Final = """\b
Examples:
  p2psched job show last
  p2psched job show 1a2b -o json
"""
WAIT_EXAMPLES: Final = """\b
Examples:
  p2psched job wait last
  p2psched job wait hello --timeout 10m && echo done
"""
CANCEL_EXAMPLES: Final = """\b
Example:
  p2psched job cancel 1a2b
"""


@reads_from_peers
def jobs(
    target: Target,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="Show so many, the newest first.")
    ] = 20,
    at: AtOption = None,
) -> None:
    """List jobs, newest first."""
    one_time(target, at)

    async def work(client: Client) -> tuple[JobList, Label]:
        if at is not None:
            return await past(client.session, at, ListJobs(limit), JobList), {}
        return await client.session.call(ListJobs(limit), JobList), label(client)

    found, age = talk(target, work)
    names = short_ids([view.job for view in found.jobs])
    match target.output:
        case Output.JSON:
            print_json(jobs=[job_fields(view) for view in found.jobs], total=found.total, **age)
        case Output.QUIET:
            for identity in names.values():
                write_line(identity)
        case Output.TABLE if not found.jobs:
            submit = "`p2psched submit-job -- COMMAND` submits one"
            note(f"no jobs yet: {submit}" if at is None else f"no jobs as of entry {at}")
        case Output.TABLE:
            now_ms = BootClock().wall_ms()
            print_table(_COLUMNS, [_row(view, names[view.job], now_ms) for view in found.jobs])
            if found.total > len(found.jobs):
                note(f"{found.total - len(found.jobs):,} older ones: --limit shows more")


_COLUMNS: Final = (
    Column(title="id"),
    Column(title="name", shrink_to=6),
    Column(title="state"),
    Column(title="done", right=True),
    Column(title="failed", right=True),
    Column(title="age", right=True, drop=1),
    Column(title="command", shrink_to=10, drop=2),
)


def _row(view: JobView, name: str, now_ms: int) -> tuple[object, ...]:
    done = f"{ended_tasks(view) - view.cancelled}/{view.tasks}"
    age = span((now_ms - view.submitted_ms) / 1000)
    state = f"{view.state}, {view.once.unknown:,} unknown" if view.once.unknown else view.state
    state = waits_text(view.after) or state
    return name, view.name, state, done, view.failed or "-", age, command_text(view)


Details = tuple[list[TaskEnd], Sequence[TaskProgress], Isolation | None]


@reads_from_peers
def show(target: Target, job: JobArgument, at: AtOption = None) -> None:
    """Show all about a job: counts, peers, failures, and why it waits."""
    one_time(target, at)

    async def work(client: Client) -> tuple[JobView, Details, dict[str, str], Label]:
        failures: list[TaskEnd] = []
        running: Sequence[TaskProgress] = ()
        limits = None
        if at is not None:
            view = await past(client.session, at, FindJob(job), JobView)
        else:
            found = await client.job(job)
            view = await found.show()
            running = await running_tasks(found, view)
            failures = await first_failures(client, view, limit=FAILURES_LISTED)
            limits = await _limits_of(client, found.id)
        names = {peer.info.peer: peer.info.name for peer in await client.peers()}
        known = {str(peer): name for peer, name in names.items()}
        return view, (failures, running, limits), known, label(client)

    view, (failures, running, limits), names, age = talk(target, work)
    match target.output:
        case Output.JSON:
            tasks = [task_fields(task) for task in failures]
            now = [progress_fields(row) for row in running]
            bounds = limit_fields(limits) if limits is not None else None
            fields = {**job_fields(view), "limits": bounds}
            print_json(job=fields, failures=tasks, progress=now, **age)
        case Output.QUIET:
            write_line(short(view.job))
        case Output.TABLE:
            print_sheet(_sheet(view, names, limits))
            print_running(running, names)
            for task in failures:
                write_line(failure(task))
            if view.failed > len(failures) and at is None:
                write_line(f"and {view.failed - len(failures):,} more failed tasks")


async def _limits_of(client: Client, job: JobId) -> Isolation | None:
    """They stand in what was submitted, which one peer alone may lack: then nothing is said."""
    if client.staleness is not None:
        return None
    body = FetchHistory(job, limit=1, here_only=True)  # so it brings what was submitted
    spec = (await client.session.call(body, History)).spec
    return spec.isolation if spec is not None else None


def _start_text(view: JobView) -> str | None:
    once = view.once
    if once.start is Start.EXCLUSIVE:
        return f"exclusive: at one peer at a time, with a lease of {span(once.lease_ms / 1000)}"
    return None if once.start is Start.LEAST else once.start.name.lower()


def _by_id(names: dict[str, str]) -> dict[PeerId, str]:
    return {PeerId(peer): name for peer, name in names.items()}


def _sheet(
    view: JobView, names: dict[str, str], limits: Isolation | None
) -> list[tuple[str, object]]:
    counted = (*view.owners, *view.finished_by, *view.once.at)
    known = {peer: names[peer] for peer, _ in counted if peer in names}
    return [
        ("job", view.job),
        ("name", view.name),
        ("state", view.state),
        ("waits", view.note),
        ("after", after_text(view.after)),
        ("aborted for", aborted_for_text(view.after)),
        ("kind", view.kind),
        ("command", command_text(view)),
        ("limits", limits_text(limits) if limits is not None else None),
        ("tasks", f"{view.task_set} ({view.tasks:,})"),
        ("succeeded", view.succeeded),
        ("failed", view.failed),
        ("cancelled", view.cancelled),
        ("unknown", unknown_text(view) if view.once.unknown else None),
        ("unknown on", per_peer(view.once.at, known) or None),
        ("may start", _start_text(view)),
        ("replicas", replicas_text(view.backups)),
        ("backups", backups_text(view.backups, _by_id(names))),
        ("priority", precedence_text(view.precedence)),
        ("preempted", preempted_text(view.precedence)),
        ("waiting", view.waiting),
        ("with peers", view.owned),
        ("owned by", per_peer(view.owners, known)),
        ("finished by", per_peer(view.finished_by, known)),
        ("stolen", moves_text(view, _by_id(names))),
        ("resumed", resumed_text(view, _by_id(names))),
        ("attempts lost", f"{view.attempts_lost} (with their peer)"),
        ("attempts failed", f"{view.attempts_failed} (and retried)"),
        ("ended badly by", _bad_ends_text(view)),
        ("next attempts", _delayed_text(view)),
        ("given up", view.stopped or None),
        ("results refused", f"{view.results_refused} (of owners that were not any more)"),
        ("submitted", f"{moment(view.submitted_ms)} by {view.submitter or 'nobody'}"),
        ("ended", moment(view.ended_ms)),
        ("results", _results_text(view)),
        ("kept", _kept_text(view)),
    ]


def _results_text(view: JobView) -> str:
    text = size(view.result_bytes)
    if view.lost:
        again = f"`p2psched job retry {short(view.job)}` computes them again"
        text += f"; {count(view.lost, 'task')} lost the last copy of theirs: {again}"
    if view.short:
        text += f"; {count(view.short, 'large one')} on fewer disks than asked for"
    return text


def _bad_ends_text(view: JobView) -> str | None:
    return ", ".join(f"{cause} {number:,}" for cause, number in view.bad_ends) or None


def _delayed_text(view: JobView) -> str | None:
    if view.next_attempt_ms is None:
        return None
    return f"{count(view.delayed, 'task')} wait, the first until {moment(view.next_attempt_ms)}"


def _kept_text(view: JobView) -> str | None:
    if view.ended_ms is None:
        return None
    if view.pinned:
        return "until you unpin or remove it"
    return f"for {span(view.keep_ms / 1000)} after its end" if view.keep_ms is not None else None


@talks_to_peers
def wait(
    target: Target,
    job: JobArgument,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="DURATION", help="Stop waiting then, exit 4."),
    ] = None,
) -> None:
    """Wait until a job has ended; exit 0 only if it succeeded.

    Ctrl-C stops waiting and leaves the job alone; a second Ctrl-C right after cancels it.
    """
    timeout_s = None if timeout is None else duration(timeout, "--timeout")

    async def work(client: Client) -> None:
        found = await client.job(job)
        following = follow_job(
            client, found, output=target.output, show_outputs=False, timeout_s=timeout_s
        )
        await conclude(client, await detachable(found, following), target.output)

    talk(target, work)


@talks_to_peers
def cancel(target: Target, job: JobArgument) -> None:
    """Cancel a job. What has ended stays; everything else ends now, for good."""

    async def work(client: Client) -> tuple[JobView, JobView]:
        found = await client.job(job)
        before = await found.show()
        if before.state is JobState.RUNNING:
            await found.cancel()
        return before, await found.show()

    before, after = talk(target, work)
    changed = before.state is JobState.RUNNING and after.state is JobState.CANCELLED
    match target.output:
        case Output.JSON:
            print_json(job=job_fields(after), cancelled_now=changed)
        case Output.QUIET:
            write_line(short(after.job))
        case Output.TABLE if changed:
            write_line(summary(after))
        case Output.TABLE:
            write_line(f"{title(after)} had ended already: {after.state}")

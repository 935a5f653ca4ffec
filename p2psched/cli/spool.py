"""`p2psched spool`: jobs that wait on one peer's disk until it hears a majority again."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk_to_one
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import (
    Column,
    Output,
    count,
    moment,
    note,
    one_line,
    print_json,
    print_sheet,
    print_table,
    span,
    write_line,
)
from p2psched.client.disconnected import Disconnected
from p2psched.model.ids import short
from p2psched.model.separation_messages import SpooledJob, SpoolList, SpoolReceipt

LIST_EXAMPLES: Final = """\b
Examples:
  p2psched spool list
  p2psched spool list --peer 127.0.0.1:7430 -o json
"""
SHOW_EXAMPLES: Final = """\b
Example:
  p2psched spool show nightly
"""
RM_EXAMPLES: Final = """\b
Example:
  p2psched spool rm nightly
"""
EXIT_SPOOLED: Final = 8  # a receipt, and no job yet
_COLUMNS: Final = (
    Column(title="id"),
    Column(title="name", shrink_to=8),
    Column(title="tasks", right=True),
    Column(title="since", drop=1),
    Column(title="command", shrink_to=10, drop=2),
)
_Job = Annotated[str, typer.Argument(metavar="JOB", help="Id, first digits of it, or name.")]


@talks_to_peers
def list_spool(target: Target) -> None:
    """List what waits in the spool of one peer, in the order in which it will be submitted.

    Jobs come there by submit-job, while there is no majority. Each gets a receipt; it is a
    job of the cluster once it has left the spool, and `reconcile show` tells what became of it.
    """

    async def work(peer: Disconnected) -> SpoolList:
        return await peer.spooled()

    found = talk_to_one(target, work)
    match target.output:
        case Output.JSON:
            print_json(spool=[_fields(job) for job in found.jobs], away_s=found.away_ms / 1000)
        case Output.QUIET:
            for job in found.jobs:
                write_line(short(job.job))
        case Output.TABLE:
            print_table(_COLUMNS, [_row(job) for job in found.jobs])
            if found.jobs and found.away_ms:
                note(f"this peer hears no majority, for {span(found.away_ms / 1000)}")


@talks_to_peers
def show_spooled(target: Target, job: _Job) -> None:
    """Show one job that waits in the spool."""
    found = talk_to_one(target, lambda peer: peer.find(job))
    match target.output:
        case Output.JSON:
            print_json(spooled=_fields(found))
        case Output.QUIET:
            write_line(short(found.job))
        case Output.TABLE:
            print_sheet([(name, value) for name, value in _fields(found).items()])


@talks_to_peers
def remove_spooled(target: Target, job: _Job) -> None:
    """Take a job out of the spool: it is never submitted. Refused once it is on its way."""

    async def work(peer: Disconnected) -> SpooledJob:
        found = await peer.find(job)
        await peer.remove(found.job)
        return found

    found = talk_to_one(target, work)
    match target.output:
        case Output.JSON:
            print_json(removed=found.job)
        case Output.QUIET:
            write_line(short(found.job))
        case Output.TABLE:
            write_line(f"{found.name} ({short(found.job)}) is removed from the spool")


def say_receipt(receipt: SpoolReceipt, name: str, output: Output) -> None:
    """Of `submit-job --spool`; the caller exits with `EXIT_SPOOLED`."""
    note(
        "the cluster can't be asked: this is a receipt, the job is not accepted yet. It waits in "
        f"the spool behind {count(receipt.ahead, 'other job')}, see `p2psched spool list`"
    )
    match output:
        case Output.JSON:
            print_json(receipt={"job": receipt.job, "name": name, "ahead": receipt.ahead})
        case Output.QUIET:
            write_line(short(receipt.job))
        case Output.TABLE:
            write_line(f"{name} ({short(receipt.job)}): in the spool")


def _fields(job: SpooledJob) -> dict[str, object]:
    return {
        "id": job.job,
        "name": job.name,
        "tasks": job.tasks,
        "command": one_line(job.command),
        "submitter": job.submitter,
        "since": moment(job.wall_ms),
    }


def _row(job: SpooledJob) -> tuple[object, ...]:
    since = moment(job.wall_ms)
    return short(job.job), job.name, job.tasks, since, one_line(job.command)

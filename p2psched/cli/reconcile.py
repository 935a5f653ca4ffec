"""`p2psched reconcile`: what became of a peer's work, once it was cut off and is back."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import typer

from p2psched.cli.connect import talk_to_one
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Output, count, moment, print_json, span, write_line
from p2psched.client.disconnected import Disconnected
from p2psched.model.errors import NotFound
from p2psched.model.ids import short
from p2psched.model.reconcile import Judged, Reconciliation
from p2psched.model.separation_messages import ReconcileList
from p2psched.model.status_messages import SeparationStatus

SHOW_EXAMPLES: Final = """\b
Examples:
  p2psched reconcile show
  p2psched reconcile show --all -o json
"""


@talks_to_peers
def show_reconcile(
    target: Target,
    *,
    all_of_them: Annotated[
        bool, typer.Option("--all", help="The newest 20 reports, oldest first.")
    ] = False,
) -> None:
    """Tell what became of the work of one peer after it was cut off from the majority.

    Results from there that count, results that were discarded because others had the tasks
    meanwhile, work that was ended without a result, and jobs from its spool. Needs no majority.
    """

    async def work(peer: Disconnected) -> ReconcileList:
        return await peer.reconciles()

    found = talk_to_one(target, work)
    reports = found.reports if all_of_them else found.reports[-1:]
    if target.output is Output.JSON:
        away_s = found.away_ms / 1000
        shown = [_fields(report) for report in reports]
        print_json(reports=shown, away_s=away_s, spooled=found.spooled)
        return
    if found.away_ms:
        write_line(f"it is cut off now, for {span(found.away_ms / 1000)}")
    if not reports and not found.away_ms:
        raise NotFound("this peer has no report: it was not cut off as far as it remembers")
    for report in reports:
        if target.output is Output.QUIET:
            write_line(str(report.number))
        else:
            _say(report)


def summary(report: Reconciliation) -> str:
    """In one line."""
    told = [
        (report.tasks_committed, "committed from here"),
        (report.tasks_discarded, "discarded"),
        (report.tasks_ended, "ended without a result"),
    ]
    parts = [f"{number:,} {what}" for number, what in told if number]
    if report.spooled:
        parts.append(f"{count(len(report.spooled), 'job')} from the spool")
    return ", ".join(parts) or "nothing was kept that had to be decided"


def separation_fields(found: SeparationStatus) -> dict[str, object]:
    """Of `status`."""
    newest = None if found.newest is None else _fields(found.newest)
    return msgspec.structs.asdict(found) | {"newest": newest}


def _say(report: Reconciliation) -> None:
    restarts = f", {count(report.restarts, 'restart')}" if report.restarts else ""
    write_line(
        f"report {report.number}: cut off for {span(report.away_ms / 1000)} until "
        f"{moment(report.back_wall_ms)}{restarts}; decided in {span(report.decided_ms / 1000)}"
    )
    write_line(f"  {summary(report)}")
    for line in report.committed:
        write_line(f"  committed  {_task(line)}")
    for line in report.discarded:
        write_line(f"  discarded  {_task(line)}: RESULT_DISCARDED, {_current(line)}")
    for line in report.ended:
        write_line(f"  ended      {_task(line)}: {_current(line)}")
    for line in report.overdue:
        write_line(f"  overdue    {_task(line)}: max_disconnect was over")
    for job in report.spooled:
        write_line(f"  spool      {job.name} ({short(job.job)}): {job.outcome}")
    if report.left_off:
        write_line(f"  {report.left_off:,} more lines are left off")


def _task(line: Judged) -> str:
    return f"{short(line.job)}/{line.tasks} under grant {line.grant}"


def _current(line: Judged) -> str:
    return f"grant {line.current} counts" if line.current else "nobody has it any more"


def _fields(report: Reconciliation) -> dict[str, object]:
    fields = msgspec.structs.asdict(report)
    for name in ("committed", "discarded", "ended", "overdue"):
        fields[name] = [_line(line) for line in fields[name]]
    fields["spooled"] = [msgspec.structs.asdict(job) for job in report.spooled]
    fields["began"] = moment(fields.pop("began_wall_ms"))
    fields["back"] = moment(fields.pop("back_wall_ms"))
    del fields["told_ms"]
    return fields


def _line(line: Judged) -> dict[str, object]:
    return {
        "job": line.job,
        "tasks": str(line.tasks),
        "count": len(line.tasks),
        "grant": line.grant,
        "current": line.current or None,
    }

"""`p2psched job export`: the results of a job as a file for other programs.

Rows go to stdout or to a file that is whole or not there. Pickles are passed on as they are, in
base64: nothing is opened here.
"""

from __future__ import annotations

import enum
import io
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk
from p2psched.cli.describe import title
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Output, count, print_json, write_line
from p2psched.cli.results import say_if_running
from p2psched.client.client import Client
from p2psched.client.export import Exported, export_job, export_to_stream
from p2psched.client.export_files import FOLDER, SQLITE
from p2psched.model.errors import ResultLost, UsageError
from p2psched.model.ids import short

EXPORT_EXAMPLES: Final = """\b
Examples:
  p2psched job export last | jq .value
  p2psched job export last scores.csv
  p2psched job export 1a2b run.sqlite --force
  p2psched job export 1a2b results --to dir
"""


class Format(enum.StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    SQLITE = SQLITE
    DIR = FOLDER


@talks_to_peers
def export(
    target: Target,
    job: JobArgument,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="Where to. Default: stdout, for jsonl and csv."),
    ] = None,
    to: Annotated[
        Format | None,
        typer.Option("--to", help="Default: as the suffix of PATH says; on stdout jsonl."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at PATH.")] = False,
) -> None:
    """Write the results of a job to a file: JSON lines, CSV, SQLite, or a folder.

    It is one row, or folder, a task that has ended. Pickled values stay packed, as base64. A
    folder gets the bytes of large results too, the others their digests and sizes.
    """
    if path is None and to in {Format.SQLITE, Format.DIR}:
        raise UsageError(f"{to} can't go to stdout: name a PATH")

    async def work(client: Client) -> Exported:
        found = await client.job(job)
        if path is not None:
            return await export_job(found, path, form=to, overwrite=force)
        stream = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
        try:
            return await export_to_stream(found, stream, form=to or Format.JSONL)
        finally:
            stream.detach()

    done = talk(target, work)
    say_if_running(done.view)
    if path is not None:
        _say_done(done, target.output)
    if done.lost:
        name = short(done.view.job)
        raise ResultLost(
            f"no peer has {count(done.lost, 'large result')} of job {name} any more, an empty file "
            f"*.lost is in the place of each: `p2psched job retry {name}` computes them again"
        )


def _say_done(done: Exported, output: Output) -> None:
    match output:
        case Output.JSON:
            print_json(
                job=done.view.job,
                state=done.view.state,
                rows=done.rows,
                lost=done.lost,
                format=done.format,
                path=str(done.path),
            )
        case Output.QUIET:
            write_line(str(done.path))
        case Output.TABLE:
            write_line(f"{title(done.view)}: {count(done.rows, 'row')} in {done.path}")

"""`p2psched job resolve`: a person says what became of tasks that are unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from p2psched.cli.connect import talk
from p2psched.cli.describe import job_fields, title
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Output, count, print_json, write_line
from p2psched.client.client import Client
from p2psched.model.errors import Refused, UsageError
from p2psched.model.ids import short
from p2psched.model.messages import JobView
from p2psched.model.once import RESULT_BYTES_MAX, Start
from p2psched.model.taskset import TaskSet

RESOLVE_EXAMPLES: Final = """\b
Examples:
  p2psched job resolve last 0 --succeeded
  p2psched job resolve 1a2b 3,7-9 --failed "not in the list"
  p2psched job resolve 1a2b 4 --run-again
"""
Word = Literal["succeeded", "failed", "run-again"]

_Tasks = Annotated[str, typer.Argument(metavar="INDICES", help="Which tasks, as 0 or 3,7-9.")]
_Succeeded = Annotated[bool, typer.Option("--succeeded", help="They have done their work.")]
_Failed = Annotated[
    str | None, typer.Option("--failed", metavar="REASON", help="They have not, and shall not.")
]
_Again = Annotated[
    bool, typer.Option("--run-again", help="They have not, or it does no harm: start them anew.")
]
_Result = Annotated[
    Path | None,
    typer.Option(
        "--result",
        metavar="FILE",
        help="With --succeeded: what a program printed, or what a function returned, as JSON.",
    ),
]


@talks_to_peers
def resolve(
    target: Target,
    job: JobArgument,
    tasks: _Tasks,
    *,
    succeeded: _Succeeded = False,
    failed: _Failed = None,
    run_again: _Again = False,
    result: _Result = None,
) -> None:
    """Decide about tasks of a --start once job whose peer was lost while they may have run.

    Look first at what they did: nobody else knows. The decision is final, and stands in `job
    history` with your name.
    """
    verdict = _verdict(succeeded=succeeded, failed=failed is not None, run_again=run_again)
    if result is not None and verdict != "succeeded":
        raise UsageError("--result FILE goes with --succeeded")
    chosen = _indices(tasks)

    async def work(client: Client) -> JobView:
        found = await client.job(job)
        view = await found.show()
        if not view.once.unknown:
            raise Refused(f"{title(view)} has no unknown tasks: there is nothing to decide")
        if view.once.start is Start.EXCLUSIVE:
            raise Refused(f"{title(view)} is exclusive: time decides, so there is nothing to say")
        value = None if result is None else _result_of(result, view.kind)
        await found.resolve(chosen, verdict, result=value, reason=failed or "")
        return await found.show()

    view = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(job=job_fields(view), decided=str(chosen), verdict=verdict)
        case Output.QUIET:
            write_line(short(view.job))
        case Output.TABLE:
            left = (
                f"; {count(view.once.unknown, 'task')} still unknown" if view.once.unknown else ""
            )
            said = {"succeeded": "succeeded", "failed": "failed", "run-again": "again"}[verdict]
            write_line(f"{title(view)}: {count(len(chosen), 'task')} {said}{left}")


def _verdict(*, succeeded: bool, failed: bool, run_again: bool) -> Word:
    words: list[Word] = []
    words += ["succeeded"] * succeeded
    words += ["failed"] * failed
    words += ["run-again"] * run_again
    if len(words) != 1:
        raise UsageError("say one of --succeeded, --failed REASON and --run-again")
    return words[0]


def _result_of(path: Path, kind: str) -> object:
    try:
        if path.stat().st_size > RESULT_BYTES_MAX:
            raise UsageError(
                f"{path} is larger than {RESULT_BYTES_MAX // 1024} KiB: give its path as the result"
            )
        data = path.read_bytes()
        return data if kind == "program" else json.loads(data)
    except OSError as error:
        raise UsageError(f"--result {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--result {path} is no JSON: {error}") from error


def _indices(text: str) -> TaskSet:
    try:
        return TaskSet.parse(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}: write it like 0 or 3,7-9") from error

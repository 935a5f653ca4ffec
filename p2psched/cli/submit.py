"""`p2psched submit-job`: a command line becomes a job."""

from __future__ import annotations

import hashlib
import random
import stat
from pathlib import Path
from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk
from p2psched.cli.describe import job_fields, title
from p2psched.cli.follow import conclude, follow_job
from p2psched.cli.interrupt import detachable
from p2psched.cli.options import Target, duration, keep_ms, talks_to_peers
from p2psched.cli.output import Output, count, note, print_json, write_line
from p2psched.client.client import Client, Job, who_am_i
from p2psched.model.errors import UsageError
from p2psched.model.ids import JobId, new_id, short
from p2psched.model.job import JobSpec, ProgramWork, SentFile
from p2psched.model.limits import JOB_ARGUMENT_BYTES_MAX, KIB
from p2psched.model.messages import JobAccepted, JobView, Submit
from p2psched.model.taskset import TaskSet

KEY_LEN_MAX: Final = 1024
_KEY_CONTEXT: Final = b"p2psched idempotency key\0"
_ID_DIGITS: Final = 32

EXAMPLES: Final = """\b
Examples:
  p2psched submit-job --wait -- python3 -c 'print(6*7)'
  p2psched submit-job --name hello --array 0-99 -- \\
      sh -c 'echo task $P2P_INDEX on $P2P_PEER'
  p2psched submit-job --send train.py --retries 2 \\
      --timeout 1.5h --wait -- python3 train.py

A task finds its index in $P2P_INDEX, and $P2P_PEER, $P2P_JOB_ID,
$P2P_TASK_ID, $P2P_ATTEMPT, $P2P_FENCE beside it.
"""


_Command = Annotated[
    list[str],
    typer.Argument(metavar="COMMAND", help="The program and its arguments. No shell."),
]
_Name = Annotated[
    str | None, typer.Option("--name", help="For people. Default: the program's name.")
]
_Array = Annotated[
    str | None,
    typer.Option("--array", metavar="INDICES", help="One task for each index, as 0-99 or 1,3,7-9."),
]
_Wait = Annotated[
    bool, typer.Option("--wait", help="Show the output; exit 0 only if all tasks succeed.")
]
_WaitTimeout = Annotated[
    str | None,
    typer.Option("--wait-timeout", metavar="DURATION", help="Stop waiting then, exit 4."),
]
_Key = Annotated[
    str | None,
    typer.Option("--key", metavar="TEXT", help="The same key again is the same job."),
]
_Send = Annotated[
    list[Path] | None,
    typer.Option("--send", metavar="FILE", help="Put a copy into each task's folder."),
]
_Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="A variable of the environment."),
]
_Cwd = Annotated[
    str | None,
    typer.Option(
        "--cwd", metavar="DIR", help="A folder on the peers. Default: one of the task's own."
    ),
]
_Timeout = Annotated[
    str | None,
    typer.Option("--timeout", metavar="DURATION", help="End an attempt after this: 90s, 1.5m, 2h."),
]
_Retries = Annotated[int, typer.Option("--retries", help="Further attempts for a task that fails.")]
_Keep = Annotated[
    str | None,
    typer.Option(
        "--keep-results",
        metavar="DURATION",
        help="Forget the job so long after its end. Default: as its peers are set up.",
    ),
]
_Copies = Annotated[
    int, typer.Option("--copies", help="Disks that a large result is on before it counts.")
]
_Cpus = Annotated[int, typer.Option("--cpus", help="Slots that one task takes.")]


@talks_to_peers
def submit_job(
    target: Target,
    *,
    command: _Command,
    name: _Name = None,
    array: _Array = None,
    wait: _Wait = False,
    wait_timeout: _WaitTimeout = None,
    key: _Key = None,
    send: _Send = None,
    env: _Env = None,
    cwd: _Cwd = None,
    timeout: _Timeout = None,
    retries: _Retries = 0,
    cpus: _Cpus = 1,
    keep_results: _Keep = None,
    copies: _Copies = 2,
) -> None:
    """Submit a command, as one task or as many. Prints the id of the job.

    Once this returns, the job can't be lost. Everything after -- is the command, and it never
    passes through a shell.
    """
    wait_s = None if wait_timeout is None else duration(wait_timeout, "--wait-timeout")
    try:
        spec = JobSpec(
            name=Path(command[0]).name[:128] if name is None else name,
            tasks=TaskSet.of(0, 1) if array is None else _indices(array),
            work=ProgramWork(
                argv=tuple(command),
                env=tuple(sorted(_variables(env or []).items())),
                cwd=_folder(cwd),
                files=tuple(_read(path) for path in send or []),
            ),
            retries=retries,
            timeout_ms=None if timeout is None else _milliseconds(timeout),
            cpus=cpus,
            submitter=who_am_i(),
            keep_ms=None if keep_results is None else keep_ms(keep_results),
            copies=copies,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    job_id = JobId(new_id(random.SystemRandom()) if key is None else job_of_key(key))

    async def work(client: Client) -> None:
        answer = await client.session.call(Submit(job_id, spec), JobAccepted)
        job = Job(client.session, job_id)
        view = await job.show()
        _say_accepted(view, target.output, known=answer.duplicate, waits=wait)
        if wait:
            following = follow_job(
                client, job, output=target.output, show_outputs=True, timeout_s=wait_s
            )
            await conclude(client, await detachable(job, following), target.output)

    talk(target, work)


def job_of_key(key: str) -> str:
    """The job that a key stands for: 128 bits of its hash."""
    if not 1 <= len(key) <= KEY_LEN_MAX:
        raise UsageError(f"--key has 1 to {KEY_LEN_MAX} characters")
    data = key.encode(errors="surrogateescape")
    return hashlib.sha256(_KEY_CONTEXT + data).hexdigest()[:_ID_DIGITS]


def _say_accepted(view: JobView, output: Output, *, known: bool, waits: bool) -> None:
    if known:
        note(f"{title(view)} was submitted before and is the same job now: it is {view.state}")
    if waits:  # stdout belongs to the tasks, or to the answer at the end
        if output is Output.TABLE and not known:
            note(f"{title(view)}: {count(view.tasks, 'task')}")
        return
    match output:
        case Output.JSON:
            print_json(job=job_fields(view), duplicate=known)
        case Output.QUIET:
            write_line(short(view.job))
        case Output.TABLE:
            write_line(f"{title(view)}: {count(view.tasks, 'task')}")


def _indices(text: str) -> TaskSet:
    try:
        return TaskSet.parse(text)
    except ValueError as error:
        raise UsageError(f"--array: {error}: write it like 0-99 or 1,3,7-9") from error


def _variables(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {pair[:64]!r} is no variable: write it like NAME=VALUE")
        found[name] = value
    return found


def _folder(cwd: str | None) -> str | None:
    if cwd is not None and not cwd.startswith("/"):
        raise UsageError(
            f"--cwd {cwd[:64]!r} is relative, and tasks run on other machines: give a whole path"
        )
    return cwd


def _milliseconds(text: str) -> int:
    return max(1, round(duration(text, "--timeout") * 1000))


def _read(path: Path) -> SentFile:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"--send {path}: it is no file; only plain files can be sent")
        if status.st_size > JOB_ARGUMENT_BYTES_MAX:
            raise UsageError(
                f"--send {path}: it has {-(-status.st_size // KIB)} KiB, and all that a job "
                f"carries may have {JOB_ARGUMENT_BYTES_MAX // KIB} KiB: put it on a shared disk"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--send {path} can't be read: {error.strerror}") from error
    return SentFile(path.name, stat.S_IMODE(status.st_mode) & 0o777, data)

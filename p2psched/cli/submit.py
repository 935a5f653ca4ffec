"""`p2psched submit-job`: a command line becomes a job."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from p2psched.cli.after import Order
from p2psched.cli.batches import BATCHES_HELP, print_outcomes
from p2psched.cli.connect import talk
from p2psched.cli.cutting import Cutting, leave_in_spool
from p2psched.cli.describe import job_fields, title
from p2psched.cli.follow import conclude, follow_job
from p2psched.cli.holds import Holding
from p2psched.cli.interrupt import detachable
from p2psched.cli.limits import Bounds
from p2psched.cli.needs import Choice, staying_apart
from p2psched.cli.options import Target, duration, keep_ms, talks_to_peers, with_options
from p2psched.cli.output import Output, count, note, print_json, write_line
from p2psched.cli.progress import Progress
from p2psched.cli.rules import Rules, Told
from p2psched.cli.saving import Saving
from p2psched.cli.sending import modes_of, opened_inputs, sending_of
from p2psched.client import blobs
from p2psched.client.batches import lines_of, pack_batches
from p2psched.client.client import Client, Job, who_am_i
from p2psched.client.functions import PackedJob, timeout_ms
from p2psched.core.policies.registry import POLICIES
from p2psched.model.errors import Unavailable, UsageError
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId, new_id, short
from p2psched.model.isolation import Isolation
from p2psched.model.job import JobSpec, ProgramWork, SentFile
from p2psched.model.messages import JobView, Submit
from p2psched.model.needs import Needs
from p2psched.model.taskset import TaskSet

KEY_LEN_MAX: Final = 1024
_KEY_CONTEXT: Final = b"p2psched idempotency key\0"
_ID_DIGITS: Final = 32

_EXAMPLES: Final = """\b
Examples:
  p2psched submit-job --wait -- python3 -c 'print(6*7)'
  p2psched submit-job --name hello --array 0-99 -- \\
      sh -c 'echo task $P2P_INDEX on $P2P_PEER'
  p2psched submit-job --send train.py --retries 2 \\
      --timeout 1.5h --wait -- python3 train.py
  p2psched submit-job --retry exit=5,delay=exp:1s:60s \\
      --retry timeout=1 --timeout 10m -- ./fetch
  p2psched submit-job --progress 'epoch (\\d+)/(\\d+)' \\
      --timeout 2h --on-stall elsewhere -- ./train
  p2psched submit-job --send data.bin --collect model.bin \\
      --send train.py -- python3 train.py
  p2psched submit-job --inputs urls.txt --batch 200 --wait \\
      --send score.py -- python3 score.py > scores.txt
  p2psched submit-job --resource cam:1 --array 0-9 -- ./take
  p2psched submit-job --queue deploys --ordered -- ./deploy
  p2psched submit-job --require arch=arm64 -- ./build
  p2psched submit-job --limit mem=2G --replicas 2 -- ./sign
  p2psched submit-job --after fetch --after 1a2b -- ./train

A task finds its index in $P2P_INDEX, and $P2P_PEER, $P2P_JOB_ID,
$P2P_TASK_ID, $P2P_ATTEMPT, $P2P_FENCE (a lock's token, if it holds one).
"""

_POLICIES: Final = "\n".join(f"  {p.name:<18}{p.summary}" for p in POLICIES.values())
EXAMPLES: Final = f"""{_EXAMPLES}
\b
Policies:
{_POLICIES}
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
    typer.Option("--send", metavar="FILE", help="Put a copy into each task's folder; up to 8 GiB."),
]
_Collect = Annotated[
    list[str] | None,
    typer.Option(
        "--collect",
        metavar="NAME",
        help="A file that each task leaves in its folder: part of its result.",
    ),
]
_Inputs = Annotated[
    str | None,
    typer.Option("--inputs", metavar="FILE", help=BATCHES_HELP),
]
_Batch = Annotated[
    int, typer.Option("--batch", metavar="N", min=1, help="Inputs that one process gets.")
]
_Args = Annotated[
    bool, typer.Option("--args", help="Inputs are further arguments of COMMAND, not its stdin.")
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
@with_options(Choice, "choice")
@with_options(Holding, "holding")
@with_options(Rules, "rules")
@with_options(Bounds, "bounds")
@with_options(Saving, "saving")
@with_options(Cutting, "cutting")
@with_options(Order, "order")
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
    collect: _Collect = None,
    inputs: _Inputs = None,
    batch: _Batch = 1,
    args: _Args = False,
    env: _Env = None,
    cwd: _Cwd = None,
    timeout: _Timeout = None,
    retries: _Retries = 0,
    cpus: _Cpus = 1,
    keep_results: _Keep = None,
    copies: _Copies = 2,
    holding: Holding,
    choice: Choice,
    rules: Rules,
    bounds: Bounds,
    saving: Saving,
    cutting: Cutting,
    order: Order,
) -> None:
    """Submit a command, as one task or as many. Prints the id of the job.

    Once this returns, the job can't be lost. What follows -- is the command; no shell sees it.
    """
    _check_form(inputs, array, collect, saving.checkpoint, is_batched=args or batch != 1)
    order.check()
    wait_s, timeout_s = _seconds(wait_timeout, "--wait-timeout"), _seconds(timeout, "--timeout")
    common = _Common(
        name=Path(command[0]).name[:128] if name is None else name,
        retries=retries,
        cpus=cpus,
        keep_ms=None if keep_results is None else keep_ms(keep_results),
        copies=copies,
        submitter=who_am_i(),
        hold=holding.hold,
        policy=choice.policy_name,
        **bounds.around(choice.needs),
        **rules.told,
    )
    variables, folder = _variables(bounds.variables(env or [])), _folder(cwd)
    if inputs is None:
        saved, sending = saving.checkpoint, sending_of(send or [])
        work = _work(command, variables, folder, sending.files, collect or [])
        packed = PackedJob(_spec(work, array, timeout_s, common, checkpoint=saved), sending.uploads)
    else:
        with opened_inputs(inputs) as stream:
            packed = pack_batches(
                *(command, lines_of(stream)),
                batch=batch,
                env=variables,
                cwd=folder,
                files=modes_of(send or []),
                as_arguments=args,
                timeout_s=timeout_s,
                **common,
            )
    following = _Following(waits=wait, wait_s=wait_s, batches=inputs is not None)
    _submit(target, _id(key), packed, choice.apart or [], following, cutting=cutting, order=order)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Following:
    """What is done once it is accepted."""

    waits: bool
    wait_s: float | None
    batches: bool


class _Common(Told):
    """What all kinds of jobs have."""

    name: str
    retries: int
    cpus: int
    keep_ms: int | None
    copies: int
    submitter: str
    hold: Hold | None
    policy: str
    needs: Needs | None
    isolation: Isolation | None


def _check_form(inputs: str | None, *plain: object, is_batched: bool) -> None:
    if inputs is None and is_batched:
        raise UsageError("--batch and --args are for inputs: name them with --inputs FILE")
    if inputs is not None and any(plain):
        raise UsageError("with --inputs there is no --array, no --collect and no --checkpoint")


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else duration(text, option)


def _work(
    command: list[str],
    variables: dict[str, str],
    folder: str | None,
    files: tuple[SentFile, ...],
    collect: list[str],
) -> ProgramWork:
    if collect and folder:
        raise UsageError("--collect takes files of the task's own folder: leave --cwd away")
    try:
        return ProgramWork(
            argv=tuple(command),
            env=tuple(sorted(variables.items())),
            cwd=folder,
            files=files,
            outputs=tuple(collect),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _spec(
    work: ProgramWork,
    array: str | None,
    timeout_s: float | None,
    common: _Common,
    *,
    checkpoint: str,
) -> JobSpec:
    tasks = TaskSet.of(0, 1) if array is None else _indices(array)
    try:
        limit_ms = timeout_ms(timeout_s)
        return JobSpec(tasks=tasks, work=work, timeout_ms=limit_ms, checkpoint=checkpoint, **common)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _submit(
    target: Target,
    job_id: JobId,
    packed: PackedJob,
    apart: list[str],
    how: _Following,
    *,
    cutting: Cutting,
    order: Order,
) -> None:
    packed = cutting.noted_in(packed)

    async def work(client: Client) -> None:
        spec = await staying_apart(client, packed.spec, apart, job_id)
        submit = Submit(job_id, await order.told(client, spec))
        progress = Progress("sent", sum(upload.ref.size for upload in packed.uploads))
        try:
            answer = await blobs.submit(client.session, submit, packed.uploads, progress)
        except Unavailable as error:
            if not cutting.spool:
                raise
            await leave_in_spool(client.session, target, submit, error)
            return
        finally:
            progress.hide()
        job = Job(client.session, job_id)
        view = await job.show()
        _say_accepted(view, target.output, known=answer.duplicate, waits=how.waits)
        if how.waits:
            following = follow_job(
                *(client, job),
                output=target.output,
                show_outputs=not how.batches,
                timeout_s=how.wait_s,
            )
            view = await detachable(job, following)
            if how.batches and target.output is Output.TABLE:
                await print_outcomes(client, await job.show())
            await conclude(client, view, target.output)

    talk(target, work)


def _id(key: str | None) -> JobId:
    return JobId(new_id(random.SystemRandom()) if key is None else job_of_key(key))


def job_of_key(key: str) -> str:
    """The job that a key stands for: 128 bits of its hash."""
    if not 1 <= len(key) <= KEY_LEN_MAX:
        raise UsageError(f"--key has 1 to {KEY_LEN_MAX} characters")
    data = _KEY_CONTEXT + key.encode(errors="surrogateescape")
    return hashlib.sha256(data).hexdigest()[:_ID_DIGITS]


def _say_accepted(view: JobView, output: Output, *, known: bool, waits: bool) -> None:
    if known:
        note(f"{title(view)} was submitted before and is the same job now: it is {view.state}")
    said = f"{title(view)}: {count(view.tasks, 'task')}"
    if waits:  # stdout belongs to the tasks, or to the answer at the end
        if output is Output.TABLE and not known:
            note(said)
        return
    match output:
        case Output.JSON:
            print_json(job=job_fields(view), duplicate=known)
        case Output.QUIET:
            write_line(short(view.job))
        case Output.TABLE:
            write_line(said)


def _indices(text: str) -> TaskSet:
    try:
        return TaskSet.parse(text)
    except ValueError as error:
        raise UsageError(f"--array: {error}: write it like 0-99 or 1,3,7-9") from error


def _variables(pairs: list[str]) -> dict[str, str]:
    wrong = next((pair for pair in pairs if pair.find("=") < 1), None)
    if wrong is not None:
        raise UsageError(f"--env {wrong[:64]!r} is no variable: write it like NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _folder(cwd: str | None) -> str | None:
    if cwd is None or cwd.startswith("/"):
        return cwd
    raise UsageError(f"--cwd {cwd[:64]!r} is relative, and tasks run elsewhere: give a whole path")

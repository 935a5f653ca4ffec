"""A command line as a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from p2psched.client.after import ABORT, after_of
from p2psched.client.backing import backing_of
from p2psched.client.functions import large_files, timeout_ms
from p2psched.client.isolation import shut_in
from p2psched.client.map_options import TaskOptions
from p2psched.client.pacing import pace_rules, with_stalls
from p2psched.client.precedence import precedence_of
from p2psched.client.resolving import starting
from p2psched.client.retries import policy
from p2psched.client.spool import Upload
from p2psched.model.errors import UsageError
from p2psched.model.job import JobSpec, ProgramWork, SentFile
from p2psched.model.once import Start
from p2psched.model.taskset import TaskSet


class ProgramOptions(TaskOptions, total=False):
    """What `Client.submit_program` may be told; see there."""

    tasks: TaskSet | None
    env: Mapping[str, str] | None
    cwd: str | None
    files: Sequence[SentFile]
    outputs: Sequence[str]
    retries: int
    cpus: int
    checkpoint: str


def pack_program(
    argv: Sequence[str], *, submitter: str, **options: Unpack[ProgramOptions]
) -> tuple[JobSpec, tuple[Upload, ...]]:
    """What to submit, and the blobs that must be there before. Raises UsageError."""
    rules = pace_rules(options.get("pace"))
    sent, uploads = large_files(options.get("files", ()))
    name, tasks, env = options.get("name"), options.get("tasks"), options.get("env")
    isolation, needs = shut_in(options.get("limits"), options.get("needs"))
    try:
        spec = JobSpec(
            name=name if name is not None else Path(argv[0]).name[:128] if argv else "",
            tasks=tasks if tasks is not None else TaskSet.of(0, 1),
            work=ProgramWork(
                argv=tuple(argv),
                env=tuple(sorted((env or {}).items())),
                cwd=options.get("cwd"),
                files=sent,
                outputs=tuple(options.get("outputs", ())),
            ),
            retries=options.get("retries", 0),
            timeout_ms=timeout_ms(options.get("timeout_s")),
            cpus=options.get("cpus", 1),
            submitter=submitter,
            hold=options.get("hold"),
            policy=options.get("policy", ""),
            needs=needs,
            retry=with_stalls(policy(options.get("retry")), rules),
            times=options.get("times"),
            isolation=isolation,
            checkpoint=options.get("checkpoint", ""),
            max_disconnect_ms=options.get("max_disconnect_ms"),
            pace=rules,
            **starting(options.get("start", Start.LEAST), options.get("lease")),
            backing=backing_of(
                options.get("replicas", 1), speculate=options.get("speculate", False)
            ),
            precedence=precedence_of(options.get("priority", 0), options.get("preemptible", False)),
            after=after_of(options.get("after", ()), options.get("on_parent_fail", ABORT)),
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return spec, uploads

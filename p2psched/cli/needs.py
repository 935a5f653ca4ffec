"""`submit-job --policy|--require|--prefer|--spread|--apart|--gpus|--mem`: where tasks may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import typer

from p2psched.cli.complete import complete_jobs, complete_policies
from p2psched.cli.values import labels_of, memory_mib
from p2psched.client.client import Client
from p2psched.core.policies.registry import ADAPTIVE
from p2psched.model.errors import UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.needs import Needs, check_policy

SELF: Final = "self"  # as a job to stay apart from
DEFAULT: Final = ADAPTIVE.name

_Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="NAME",
        autocompletion=complete_policies,
        help="Who says where tasks go: see below.",
    ),
]
_Require = Annotated[
    list[str] | None,
    typer.Option(
        "--require", metavar="KEY=VALUE", help="Only on peers with this label (also name, zone)."
    ),
]
_Prefer = Annotated[
    list[str] | None,
    typer.Option("--prefer", metavar="KEY=VALUE", help="First on peers with this label."),
]
_Spread = Annotated[
    str,
    typer.Option(
        "--spread",
        metavar="KEY",
        help="As many tasks on the peers of each value of this label, as zone.",
        show_default=False,
    ),
]
_Apart = Annotated[
    list[str] | None,
    typer.Option(
        "--apart",
        metavar="JOB",
        autocompletion=complete_jobs,
        help="On no peer that has tasks of this job; `self`: one task a peer.",
    ),
]
_Gpus = Annotated[int, typer.Option("--gpus", min=0, help="GPUs that one task takes.")]
_Memory = Annotated[
    str | None, typer.Option("--mem", metavar="SIZE", help="Memory that one task takes, as 2G.")
]
_NoSteal = Annotated[
    bool, typer.Option("--no-steal", help="No idle peer takes tasks over from a busy one.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Where the tasks of a job may go, as options of the command line."""

    policy: _Policy = DEFAULT
    require: _Require = None
    prefer: _Prefer = None
    spread: _Spread = ""
    apart: _Apart = None
    gpus: _Gpus = 0
    mem: _Memory = None
    no_steal: _NoSteal = False

    @property
    def policy_name(self) -> str:
        """As it stands in a spec. Raises UsageError."""
        if self.policy == DEFAULT:
            return ""
        try:
            check_policy(self.policy)
        except ValueError as error:
            raise UsageError(f"--policy: {error}: see `p2psched submit-job --help`") from error
        return self.policy

    @property
    def needs(self) -> Needs | None:
        """None if there are none. Raises UsageError for what makes no sense."""
        required = labels_of(self.require, "--require")
        preferred = labels_of(self.prefer, "--prefer")
        try:
            needs = Needs(
                require=required,
                prefer=preferred,
                spread=self.spread,
                gpus=self.gpus,
                memory_mib=0 if self.mem is None else memory_mib(self.mem, "--mem"),
                steal=not self.no_steal,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        return needs if needs != Needs() else None


async def staying_apart(client: Client, spec: JobSpec, apart: list[str], own: JobId) -> JobSpec:
    """With the ids of the jobs that it stays apart from."""
    if not apart:
        return spec
    jobs = [own if name == SELF else (await client.job(name)).id for name in apart]
    try:
        needs = msgspec.structs.replace(spec.needs or Needs(), apart=tuple(dict.fromkeys(jobs)))
        needs.__post_init__()
    except ValueError as error:
        raise UsageError(f"--apart: {error}") from error
    return msgspec.structs.replace(spec, needs=needs)

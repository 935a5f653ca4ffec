"""`submit-job --limit|--home|--pass-env`: what a task may use, and see."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from p2psched.cli.complete import complete_limits
from p2psched.client.isolation import Value, limits_of_words, shut_in
from p2psched.model.errors import UsageError
from p2psched.model.isolation import Isolation
from p2psched.model.needs import Needs

_Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        autocompletion=complete_limits,
        help="Of each task: mem=2G (or mem=need, as --mem), procs=64, files=256, cpu=30s, "
        "fsize=1G, core=0. See docs/isolation.md. Repeatable.",
    ),
]
_Home = Annotated[
    str, typer.Option("--home", metavar="peer|task", help="HOME: the peer's, or the task's folder.")
]
_PassEnv = Annotated[
    list[str] | None,
    typer.Option(
        "--pass-env", metavar="NAME", help="--env NAME=VALUE with the value that it has here."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The options of it."""

    limit: _Limit = None
    home: _Home = "peer"
    pass_env: _PassEnv = None

    def around(self, needs: Needs | None) -> tuple[Isolation | None, Needs | None]:
        """What stands in the spec, and what the job needs of its peers. Raises UsageError."""
        limits: dict[str, Value] = {**limits_of_words(self.limit or []), "home": self.home}
        return shut_in(limits, needs)

    def variables(self, given: list[str]) -> list[str]:
        """NAME=VALUE each: those, and what is passed on. Raises UsageError."""
        passed = []
        for name in self.pass_env or []:
            if name not in os.environ:
                raise UsageError(f"--pass-env {name[:64]!r}: there is no such variable here")
            passed.append(f"{name}={os.environ[name]}")
        return [*passed, *given]

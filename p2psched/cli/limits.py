"""`submit-job --limit|--sandbox|--no-network|--home|--pass-env`: what a task may use, and see."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypedDict

import typer

from p2psched.cli.complete import complete_limits
from p2psched.cli.output import size, span
from p2psched.client.isolation import Value, limits_of_words, shut_in
from p2psched.model.errors import UsageError
from p2psched.model.isolation import SANDBOX_LABEL, SANDBOXES, Isolation
from p2psched.model.needs import Needs
from p2psched.model.status_messages import Kept

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
_Sandbox = Annotated[
    str,
    typer.Option(
        "--sandbox",
        metavar="bwrap",
        help="Only on peers that have bubblewrap: the system is read-only, the task sees no other "
        "process and no file of its peer.",
        show_default=False,
    ),
]
_NoNetwork = Annotated[bool, typer.Option("--no-network", help="With --sandbox: no network.")]
_Home = Annotated[
    str, typer.Option("--home", metavar="peer|task", help="HOME: the peer's, or the task's folder.")
]
_PassEnv = Annotated[
    list[str] | None,
    typer.Option(
        "--pass-env", metavar="NAME", help="--env NAME=VALUE with the value that it has here."
    ),
]


class Bounded(TypedDict):
    """Fields of a spec."""

    isolation: Isolation | None
    needs: Needs | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The options of it."""

    limit: _Limit = None
    sandbox: _Sandbox = ""
    no_network: _NoNetwork = False
    home: _Home = "peer"
    pass_env: _PassEnv = None

    def around(self, needs: Needs | None) -> Bounded:
        """What stands in the spec, and what the job needs of its peers. Raises UsageError."""
        limits: dict[str, Value] = {**limits_of_words(self.limit or []), "home": self.home}
        if self.sandbox and self.sandbox not in SANDBOXES:
            raise UsageError(f"--sandbox is {' or '.join(SANDBOXES)}, not {self.sandbox[:32]!r}")
        if self.no_network and not self.sandbox:
            raise UsageError("--no-network takes a sandbox: add --sandbox bwrap")
        limits |= {"sandbox": self.sandbox, "network": not self.no_network}
        isolation, needs = shut_in(limits, needs)
        return Bounded(isolation=isolation, needs=needs)

    def variables(self, given: list[str]) -> list[str]:
        """NAME=VALUE each: those, and what is passed on. Raises UsageError."""
        passed = []
        for name in self.pass_env or []:
            if name not in os.environ:
                raise UsageError(f"--pass-env {name[:64]!r}: there is no such variable here")
            passed.append(f"{name}={os.environ[name]}")
        return [*passed, *given]


def limits_text(isolation: Isolation) -> str:
    """For people: those that a task has."""
    fields = limit_fields(isolation)
    texts = [
        f"{name} {show(value)}"
        for name, show in _SHOWN.items()
        if isinstance(value := fields[name], int)
    ]
    if isolation.own_home:
        texts.append("HOME is the task's folder")
    if isolation.sandbox:
        network = "" if isolation.network else " without a network"
        texts.append(f"in a sandbox ({isolation.sandbox}){network}")
    return ", ".join(texts)


def limit_fields(isolation: Isolation) -> dict[str, object]:
    """By the names that they are given by: bytes, numbers, seconds; null where there is none."""
    return {
        "mem": isolation.memory,
        "procs": isolation.processes,
        "files": isolation.files,
        "cpu": isolation.cpu_s,
        "fsize": isolation.file_size,
        "core": isolation.core,
        "home": "task" if isolation.own_home else "peer",
        "sandbox": isolation.sandbox or None,
        "network": isolation.network,
    }


_SHOWN: Final[Mapping[str, Callable[[int], str]]] = {
    "mem": size,
    "procs": str,
    "files": str,
    "cpu": span,
    "fsize": size,
    "core": size,
}


def kept_by(rows: Sequence[Kept]) -> tuple[str, str]:
    """For people: which limits are enforced and by whom, and whether there is a sandbox."""
    parts: dict[tuple[str, str], list[str]] = {}
    sandbox = ""
    for row in rows:
        if row.limit == SANDBOX_LABEL:
            sandbox = row.by or f"none: {row.lack}"
        else:
            parts.setdefault((row.by, row.lack), []).append(row.limit)
    texts = []
    for (by, lack), names in parts.items():
        why = f" ({lack})" if lack else ""
        texts.append(f"{', '.join(names)}: {by or 'not enforced'}{why}")
    return "; ".join(texts), sandbox
